"""The look of the report: light and dark, from a telephone's width up."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #5b6470; --rule: #dfe3e8; --card: #f6f8fa;
  --c0: #2f6fb3; --c1: #c9601a; --c2: #2b8a57; --c3: #a23f8f; --c4: #8a6d1d; --c5: #c0364b; --c6: #4a53b0; --c7: #567080; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ed; --soft: #9aa4b0; --rule: #323940;
  --card: #1d2126; --c0: #6aa9e9; --c1: #f0944d; --c2: #5cc48c; --c3: #d98acb; --c4: #d3b455; --c5: #f0788a;
  --c6: #98a0f2; --c7: #9bb4c3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 16px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5em; line-height: 1.25; margin: 0.4em 0; } h2 { font-size: 1.15em; margin: 1.8em 0 0.4em; }
p, figcaption { margin: 0.4em 0; } figcaption, .soft, .legend { color: var(--soft); font-size: 0.875em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; white-space: nowrap; overflow-wrap: normal; }
thead th { border-bottom: 1px solid var(--ink); } tr.first > * { border-top: 1px solid var(--rule); }
td .soft { display: block; line-height: 1.2; } tr.first th { font-weight: 600; } th { font-weight: 400; }
tbody th, .name { white-space: normal; overflow-wrap: anywhere; min-width: 7.2em; max-width: 34vw; }
.pair { display: grid; gap: 8px 40px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
figure { margin: 0; min-width: 0; max-width: 620px; } svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12.5px; fill: var(--soft); } .grid { stroke: var(--rule); stroke-width: 1; }
.dots { fill: none; stroke-width: 3.6; stroke-linecap: round; stroke-opacity: 0.6; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } .line.ink { stroke: var(--ink); } .thin { stroke-width: 1.2; }
.zero { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; } .box { fill: var(--c0); fill-opacity: 0.45; }
.band { fill-opacity: 0.16; } .legend > span { margin-right: 1em; display: inline-block; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; }
.pictures { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.pictures img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--card); border-radius: 4px; }
pre { background: var(--card); padding: 10px; border-radius: 4px; font-size: 0.8em; white-space: pre-wrap; }
"""
# Scores from low to high, all seen on white and on black.
DEGREES = ("#6a55b8", "#4876bd", "#2f93b0", "#2fa88c", "#63b35c", "#a9b13c", "#dd9a35", "#e66f3c")


def stylesheet() -> str:
    """Everything that stands in the page's style element; the plots' classes too."""
    kinds = "".join(f".c{i} {{ stroke: var(--c{i}); }} .band.c{i} {{ fill: var(--c{i}); stroke: none; }} .swatch.c{i} "
                    f"{{ background: var(--c{i}); }}\n" for i in range(8))  # fmt: skip
    degrees = "".join(f".s{i} {{ stroke: {c}; }} .swatch.s{i} {{ background: {c}; }}\n" for i, c in enumerate(DEGREES))
    return STYLE + kinds + degrees
