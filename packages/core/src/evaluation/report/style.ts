/** The style sheet of a report: light and dark by what the reader's system prefers, and fit to be printed. */

export const STYLE: string = `
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2128;--soft:#5b6672;--line:#dfe3e8;--grid:#eceff2;--better:#1767b8;--worse:#b8560f;--same:#727d89;--badge:#eaf1f9;--warn:#fff4d6;--warn-line:#e2b93b}
@media (prefers-color-scheme:dark){:root{--page:#12161b;--card:#1a2027;--ink:#e5e9ee;--soft:#9aa6b2;--line:#2d3540;--grid:#252c35;--better:#6db3f8;--worse:#f0a063;--same:#8b97a3;--badge:#20303f;--warn:#3a3116;--warn-line:#8d7425}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 6px}h2{font-size:18px;margin:0 0 4px}h3{font-size:14px;margin:20px 0 8px;color:var(--soft);font-weight:600}
p{margin:0 0 12px}.lead,.note{color:var(--soft)}.note{font-size:13.5px;max-width:82ch}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px 22px;margin-top:18px}
.facts{display:flex;flex-wrap:wrap;gap:6px 26px;margin:14px 0 0;padding:0}.facts div{min-width:0}.facts dt{font-size:12px;color:var(--soft)}.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.warning{background:var(--warn);border:1px solid var(--warn-line);border-radius:10px;padding:12px 16px;margin-top:18px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:8px 12px;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}thead th{font-size:13px;color:var(--soft);font-weight:600;vertical-align:bottom}
tbody tr:last-child>*{border-bottom:0}
tbody th{font-weight:600;min-width:130px}tbody th small{display:block;font-weight:400;color:var(--soft);max-width:34ch}
td b{font-size:16px;font-weight:600}td small{display:block;white-space:nowrap;color:var(--same);font-size:12.5px}td small.better,.delta.better{color:var(--better)}td small.worse,.delta.worse{color:var(--worse)}
.best b{text-decoration:underline;text-decoration-thickness:2px;text-underline-offset:4px}
.grid{stroke:var(--grid)}.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,430px),1fr));gap:8px 28px}.plots.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,262px),1fr))}
figure{margin:0}figcaption{font-size:13.5px;font-weight:600;margin:10px 0 2px}figcaption small{display:block;font-weight:400;color:var(--soft);font-size:12.5px}
svg.plot{width:100%;height:auto;display:block;font:12px system-ui,sans-serif}svg text{fill:var(--soft)}svg .label,svg .axis{fill:var(--ink)}
svg .zero{stroke:var(--same);stroke-width:1.2}svg line.zero{stroke-dasharray:4 3}svg .interval{stroke:currentColor;stroke-width:2}svg .mark{fill:currentColor}
svg g.better,svg .dot.better{color:var(--better)}svg g.worse,svg .dot.worse{color:var(--worse)}svg g.same,svg .dot.same{color:var(--same)}
svg .dot{fill:currentColor;fill-opacity:.42;stroke:currentColor;stroke-width:.8}
details{border-top:1px solid var(--line);padding:9px 0}details:first-of-type{border-top:0}summary{cursor:pointer;display:flex;gap:14px;align-items:baseline}
summary::marker{content:""}summary::-webkit-details-marker{display:none}summary::before{content:"\\25b8";color:var(--soft);font-size:12px;width:9px;flex:none}details[open] summary::before{content:"\\25be"}summary .q{flex:1;min-width:0;overflow-wrap:anywhere;unicode-bidi:isolate}
summary .delta{font-variant-numeric:tabular-nums;font-weight:600;min-width:3.4em;text-align:right;flex:none}summary .was{color:var(--soft);font-size:13px;white-space:nowrap;font-variant-numeric:tabular-nums;flex:none}
.passages{margin:10px 0 6px;padding-left:16px;border-left:2px solid var(--line);font-size:13.5px}.passages h4{margin:8px 0 2px;font-size:12.5px;color:var(--soft);font-weight:600}.passages ol{margin:0;padding-left:22px}.passages li{margin-bottom:5px;overflow-wrap:anywhere;unicode-bidi:isolate}
.tag{display:inline-block;background:var(--badge);border-radius:5px;padding:0 6px;font-size:12px;margin-right:6px;color:var(--ink);white-space:nowrap}
footer{color:var(--soft);font-size:13px;margin-top:22px}
@media print{body{background:#fff}section{break-inside:avoid;border-color:#ccc}}
`;
