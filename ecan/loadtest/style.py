"""The look of the reports: one style sheet and one script, inline; nothing is fetched."""

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5d6b7c;--line:#dfe4ea;--grid:#e9edf1;
--c1:#2563c9;--c2:#0f8f7c;--c3:#d2691e;--c4:#c0264b;--c5:#7b4fc4;--c6:#77808c;--ok:#0c7a4d;
--bad:#b4213d;--okbg:#e3f4ec;--badbg:#fbe6ea;--b0:#2563c90d;--b1:#2563c91a;--faint:#0000000d}
@media(prefers-color-scheme:dark){:root{--bg:#10141a;--card:#181e26;--ink:#e4e9f0;--soft:#9aa7b6;
--line:#2b3440;--grid:#242c37;--c1:#6ea3f7;--c2:#4cc9b0;--c3:#f0a060;--c4:#f4708c;--c5:#b794f4;
--c6:#8b97a6;--ok:#5ad19a;--bad:#ff8097;--okbg:#14352a;--badbg:#43202a;--b0:#6ea3f70d;
--b1:#6ea3f71f;--faint:#ffffff0d}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 4px;letter-spacing:-.01em}h2{font-size:17px;margin:34px 0 10px}
p{margin:6px 0}.soft{color:var(--soft)}.small{font-size:13px}
.verdict{border-radius:8px;padding:10px 14px;margin:16px 0;font-weight:600}
.verdict.ok{background:var(--okbg);color:var(--ok)}.verdict.bad{background:var(--badbg);
color:var(--bad)}.verdict ul{margin:4px 0 0;padding-left:20px;font-weight:400}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:16px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card b{display:block;font-size:21px;font-weight:650;font-variant-numeric:tabular-nums;
white-space:nowrap}.card span{color:var(--soft);font-size:12.5px}.card.bad b{color:var(--bad)}
.chart{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:12px 0;
padding:12px 12px 6px}.chart figcaption{font-weight:600;display:flex;flex-wrap:wrap;
justify-content:space-between;gap:4px 16px;margin:0 4px 6px}.legend{font-weight:400;font-size:13px;
color:var(--soft)}.key{margin-left:14px;white-space:nowrap}.key::before{content:"";
display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:6px;vertical-align:middle;
background:currentColor}.key.s1::before{background:var(--c1)}.key.s2::before{background:var(--c2)}
.key.s3::before{background:var(--c3)}.key.s4::before{background:var(--c4)}
.key.s5::before{background:var(--c5)}.key.s6::before,.key.old::before{background:var(--c6)}
.plot{position:relative}svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
text.y{text-anchor:end}text.x{text-anchor:middle}.grid{stroke:var(--grid)}.tick{stroke:var(--soft)}
.band{fill:var(--b0)}.band.b1{fill:var(--b1)}.band.faint{fill:var(--faint)}
text.bandname{font-size:11px}line.mark{stroke:var(--c4);stroke-dasharray:4 3}
svg text.mark{fill:var(--c4);font-size:11px}.cross{stroke:var(--soft);stroke-dasharray:2 2}
path.line{fill:none;stroke-width:1.8;stroke-linejoin:round}path.area{stroke:none;opacity:.14}
path.line.s1,circle.s1{stroke:var(--c1)}path.line.s2,circle.s2{stroke:var(--c2)}
path.line.s3,circle.s3{stroke:var(--c3)}path.line.s4,circle.s4{stroke:var(--c4)}
path.line.s5,circle.s5{stroke:var(--c5)}path.line.s6,circle.s6{stroke:var(--c6)}
path.line.old,circle.old{stroke:var(--c6);stroke-dasharray:5 4}path.area.s1{fill:var(--c1)}
path.area.s2{fill:var(--c2)}path.area.s3{fill:var(--c3)}path.area.s4{fill:var(--c4)}
path.area.s5{fill:var(--c5)}
circle{fill:var(--card);stroke-width:2}
.tip{position:absolute;top:8px;pointer-events:none;background:var(--card);border:1px solid
var(--line);border-radius:6px;padding:6px 9px;font-size:12.5px;box-shadow:0 2px 8px #0003;
white-space:nowrap;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
tr:last-child td{border-bottom:0}th{color:var(--soft);font-weight:600;font-size:12.5px}
th:first-child,td:first-child,.left{text-align:left}td.wrap{white-space:normal;text-align:left}
tr.strong td{font-weight:650}td.bad{color:var(--bad)}td.ok{color:var(--ok)}
td.few{color:var(--soft);font-style:italic}
.split{display:flex;height:18px;border-radius:4px;overflow:hidden;min-width:150px;
background:var(--grid)}.split i{display:block;height:100%}.i1{background:var(--c1)}
.i2{background:var(--c2)}.i3{background:var(--c3)}.i4{background:var(--c4)}.i5{background:var(--c5)}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px;
overflow-x:auto;font-size:12.5px}dl{display:grid;grid-template-columns:max-content 1fr;
gap:3px 16px;font-size:13.5px;margin:0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media print{body{background:#fff}.chart,.scroll,.card{break-inside:avoid}}
"""

SCRIPT = """
for(const f of document.querySelectorAll('.chart')){
 const d=JSON.parse(f.querySelector('script').textContent);if(!d)continue;
 const svg=f.querySelector('svg'),tip=f.querySelector('.tip'),cross=f.querySelector('.cross');
 const esc=s=>s.replace(/[&<>]/g,c=>({'&':'&amp;','<':'&lt;','>':'&gt;'}[c]));
 svg.addEventListener('pointermove',e=>{
  const r=svg.getBoundingClientRect(),vx=(e.clientX-r.left)*svg.viewBox.baseVal.width/r.width;
  let b=0;for(let i=1;i<d.x.length;i++)if(Math.abs(d.x[i]-vx)<Math.abs(d.x[b]-vx))b=i;
  if(!d.x.length)return;
  cross.setAttribute('x1',d.x[b]);cross.setAttribute('x2',d.x[b]);
  cross.setAttribute('visibility','visible');
  tip.innerHTML='<b>'+esc(d.label[b])+'</b>'+d.lines.filter(l=>l.text[b]).map(l=>
   '<br><span class="key '+l.style+'" style="margin:0">'+esc(l.name)+'</span> '+
   esc(l.text[b])).join('');
  tip.hidden=false;
  const px=d.x[b]/svg.viewBox.baseVal.width*r.width;
  tip.style.left=(px+14+tip.offsetWidth>r.width?px-14-tip.offsetWidth:px+14)+'px';});
 svg.addEventListener('pointerleave',()=>{tip.hidden=true;
  cross.setAttribute('visibility','hidden');});
}
"""


def page(title: str, body: str) -> str:
    """A whole HTML document; ``title`` is escaped already."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>'
        f'{title}</title><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{STYLE}</style>'
        f"<main>{body}</main><script>{SCRIPT}</script></html>\n"
    )
