#!/usr/bin/env python3
"""Takes the plots out of a report of `hearth prepare` as SVG files, for the documentation.

    tools/report_plots.py MODEL.neurons.html docs/sparsity-   # docs/sparsity-1.svg, docs/sparsity-2.svg, ...
"""
import re
import sys
from pathlib import Path


def main():
    page = Path(sys.argv[1]).read_text()
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    colours = dict(re.findall(r"--(\w+):([^;}]+)", re.search(r":root{.*?}", style)[0]))

    def plain(text): # of the light colours; many programs that show SVG know no variables
        return re.sub(r"var\(--(\w+)\)", lambda name: colours[name[1]], text)

    paper = colours["card"]
    style = plain("\n".join(line for line in style.splitlines() if "plot" in line))
    for number, svg in enumerate(re.findall(r"<svg(.*?)</svg>", page, re.S), 1):
        head, body = svg.split(">", 1)
        body = re.sub(r"<([^/>][^>]*?)(/?)>",
                      lambda tag: "<" + re.sub(r'([\w-]+)=([^"\s/>][^\s>]*)', r'\1="\2"', tag[1])
                      + tag[2] + ">", body)  # a page may leave quotes out, a file may not
        width, height = re.search(r'viewBox="0 0 (\S+) (\S+)"', head).groups()
        Path(f"{sys.argv[2]}{number}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {width} {height}" role="img">\n'
            f"<style>{style}</style>\n"
            f'<rect width="{width}" height="{height}" fill="{paper}"/>{plain(body)}</svg>\n')


if __name__ == "__main__":
    main()
