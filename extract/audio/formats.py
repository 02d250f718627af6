"""Which forms of audio files are read, and what other files look like.

What a file is comes from its content alone. The forms below are those that mark themselves, and that hold sound
themselves: no playlists, which name other files, and no samples without a header, for which any file would pass.
"""

from __future__ import annotations

import re

_DEMUXERS = """
aac ac3 aiff amr ape asf au avi avr caf dsf dts dtshd eac3 flac flv iff ircam loas matroska mlp mov mp3 mpc mpc8 mpeg
mpegts nistsphere ogg paf pvf rm shn tak truehd tta voc w64 wav wv xwma
"""
_SUFFIXES = """
3g2 3ga 3gp 8svx aac ac3 adts aif aifc aiff alac amr ape asf au avi avr bwf caf dff dsf dts dtshd eac3 ec3 f4a fla
flac flv iff latm loas m2a m2ts m4a m4b m4r m4v maud mka mkv mlp mov mp+ mp1 mp2 mp3 mp4 mpa mpc mpeg mpg mpga mpp mts
nist oga ogg ogm ogv ogx opus paf pvf ra rf64 rm rmvb sf shn snd sph spx svx tak thd ts tta vob voc w64 wav wave weba
webm wma wmv wv xwma
"""
DEMUXERS = tuple(_DEMUXERS.split())
"""FFmpeg's names of the forms that are read."""
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""What a folder is searched for, in any case; a file that is named is tried whatever its suffix."""

# Enough of a file to tell what it looks like.
HEAD_BYTES = 4096
_LOOKS = (
    (rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|script)\b", "HTML"),
    (rb"(\xef\xbb\xbf)?\s*#EXTM3U", "a playlist"),
    (rb"(\xef\xbb\xbf)?ffconcat version", "a playlist"),
    (rb"(\xef\xbb\xbf)?\s*(\[playlist\]|<asx|<smil|<\?wpl)", "a playlist"),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|!doctype|svg|rss|error)\b", "XML"),
    (rb"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` brings the file"),
    (rb"\s*[{\[]\s*[\"{\[]", "JSON"),
    (rb"%PDF-", "PDF"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd", "a compressed file"),
    (rb"Rar!|7z\xbc\xaf", "an archive"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|BM.{4}\0{4}", "a picture"),
    (rb"MThd", "MIDI, which holds notes and no sound"),
    (rb"\x89HDF", "HDF5"),
    (rb"SQLite format", "a database"),
    (rb"\x7fELF|MZ", "a program"),
)


def looks_like(head: bytes) -> str:
    """What a file that is no audio looks like, from its first bytes; "" for nothing that is known."""
    if not any(head):
        return "zeros"
    for pattern, name in _LOOKS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return name
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character is cut at the end
            return ""
        text = head[: error.start].decode()
    return "text" if all(char.isprintable() or char in "\t\r\n\f" for char in text) else ""
