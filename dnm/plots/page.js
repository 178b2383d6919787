// What a page does beyond its HTML: draw figures in its colours and width, mark where the reader is, open all code.
const narrow = matchMedia('(max-width: 60rem)'), dark = matchMedia('(prefers-color-scheme: dark)')

// A text of Plotly's in lines of at most `most` characters; tags count for nothing.
function wrap(text, most) {
  let line = 0
  return text.replace(/(\s*)(<[^>]*>|[^<\s]+)/g, (whole, space, part) => {
    if (part[0] === '<') line = part.startsWith('<br') ? 0 : line
    else if (space && line && line + whole.length > most) { line = part.length; return `<br>${part}` }
    else line += whole.length
    return whole
  })
}

// The figure of a box in the page's colours for text, lines and ground.
function coloured(box) {
  const style = getComputedStyle(document.documentElement), [ink, page, line, blue] =
    ['--ink', '--page', '--line', '--blue'].map(name => style.getPropertyValue(name))
  const ours = { white: page, '#000000': ink, '#2a3f5f': ink, '#444444': ink, '#555555': ink,
    '#EBF0F8': line, '#C8D4E3': line, '#c9cdd3': line }
  return JSON.parse(box.nextElementSibling.textContent.replaceAll('#0072B2', blue), (key, value) =>
    (value?.[0] === '#' || /color$/.test(key)) && ours[value] || value)
}

// For a narrow screen: panels below each other, the legend below them, small letters, long texts in lines.
function narrowed({ data, layout, frames }, width) {
  const axes = kind => Object.keys(layout).filter(key => key.startsWith(kind)).map(key => layout[key])
  const notes = new Set(layout.annotations), margin = layout.margin = { l: 80, t: 100, b: 80, ...layout.margin }
  const old = layout.height - margin.t - margin.b
  const panels = axes('yaxis').map(y => [layout[`xaxis${y.anchor?.slice(1)}`], y]).filter(([x, y]) => x?.domain && y.domain)
    .sort(([x, y], [x2, y2]) => y2.domain[1] - y.domain[1] || x.domain[0] - x2.domain[0])
  const each = panels.length > 1 ? 240 : old, step = each + 100, all = panels.length ? step * panels.length - 100 : old
  panels.forEach(([x, y], place) => {
    const top = 1 - place * step / all, near = (a, b) => Math.abs(a - b) < 1e-6
    for (const note of notes)
      if (note.yref === 'paper' && near(note.y, y.domain[1]) && near(note.x, (x.domain[0] + x.domain[1]) / 2)) {
        Object.assign(note, { x: 0.5, y: top, text: wrap(note.text, 50), font: { size: 12 } })
        notes.delete(note) // or it could be taken for another panel's title
      }
    ;[x.domain, y.domain] = [[0, 1], [top - each / all, top]]
    if (y.matches) delete y.showticklabels
  })
  for (const axis of [...axes('xaxis'), ...axes('yaxis')]) {
    if (axis.title?.text) axis.title.text = wrap(axis.title.text, 38)
    axis.ticktext = axis.ticktext?.map(text => wrap(text, 14))
  }
  margin.l = Math.min(margin.l, 100)
  const names = [...new Set(data.filter(trace => trace.showlegend !== false).map(trace => trace.name ?? ''))], sliders = layout.sliders ?? []
  const columns = Math.floor((width - margin.l - 15) / (40 + 7 * Math.max(...names.map(name => name.length)))) || 1
  const legend = names.length > 1 ? 22 * Math.ceil(names.length / columns) : 0
  for (const shown of [layout, ...(frames ?? []).map(frame => frame.layout)])
    if (shown?.title?.text) shown.title.text = wrap(shown.title.text, 46)
  const lines = (layout.title?.text ?? '').split('<br>').length
  Object.assign(margin, { r: 15, t: 18 * lines + (panels.length ? 55 : 35), b: 65 + legend + (sliders.length && 100) })
  for (const slider of sliders) slider.pad = { t: 60 + legend }
  Object.assign(layout, { width: undefined, height: all + margin.t + margin.b, font: { ...layout.font, size: 11 } })
  layout.title = { ...layout.title, x: 0.02, xanchor: 'left', y: 1, yanchor: 'top', yref: 'container', pad: { t: 20 }, font: { size: 13 } }
  layout.legend = { ...layout.legend, orientation: 'h', x: 0, xanchor: 'left', y: -60 / all, yanchor: 'top' }
}

async function draw() {
  for (const box of document.querySelectorAll('.plotly-graph-div')) {
    const figure = coloured(box), { data, layout } = figure
    // What has words or boxes at places of their own, or a broad margin of words, keeps its width and scrolls.
    const wide = layout.margin?.l > 200 || data.some(trace => trace.mode === 'text') ||
      layout.annotations?.filter(note => /^x\d*$/.test(note.xref ?? 'x')).length > 5
    box.style.minWidth = wide ? '46rem' : ''
    if (narrow.matches && !wide && layout.height) narrowed(figure, box.clientWidth)
    box.style.height = `${layout.height ?? 450}px`
    await Plotly.newPlot(box, { ...figure, config: { responsive: true } })
    await new Promise(next => setTimeout(next)) // the page stays alive between figures
  }
}
if (window.Plotly) {
  draw()
  for (const query of [narrow, dark]) query.addEventListener('change', draw)
}

const nav = document.querySelector('nav')
const reader = new IntersectionObserver(entries => entries.forEach(({ target, isIntersecting }) => {
  const link = nav.querySelector(`[href="#${target.id}"]`)
  link?.toggleAttribute('aria-current', isIntersecting)
  if (link && isIntersecting) nav.scrollTo(link.offsetLeft - nav.clientWidth / 3, link.offsetTop - nav.clientHeight / 2)
}), { rootMargin: '-30% 0px -70%' })
document.querySelectorAll('section').forEach(section => reader.observe(section))

const folded = document.querySelectorAll('.code'), all = nav.querySelector('label')
all.hidden = !folded.length
all.onchange = ({ target }) => folded.forEach(code => { code.open = target.checked })
