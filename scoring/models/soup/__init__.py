"""Model soups: the weights of several versions of one architecture are averaged into one model that costs one pass.

After Wortsman et al., "Model soups" (2022). Recipes and arithmetic know no framework; one file per flavor reads and
writes weights.
"""
