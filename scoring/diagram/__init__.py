"""Draws a deployment: as Mermaid text, and as a picture (SVG) that needs no program to be drawn.

`blocks` turns a deployment into boxes and forks; `mermaid` and `svg` each draw these.
"""
