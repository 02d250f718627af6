"""What both programs need and neither owns."""
