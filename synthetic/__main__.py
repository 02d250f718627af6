"""`python -m m2e.synthetic`: the synthetic data sets alone."""

from m2e.synthetic.sets import main

main()
