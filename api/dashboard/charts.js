// Small charts, as SVG: numbers in, elements out.

const make = (name, attributes = {}) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value)
  return node
}

// Lines of `series`, { name: [numbers] }, on one scale, at least up to `least`.
export class Sparkline {
  #paths = new Map()

  constructor(names) {
    this.node = make('svg', { viewBox: '0 0 100 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' })
    for (const name of names) {
      const path = make('path', { class: name })
      this.#paths.set(name, path)
      this.node.append(path)
    }
  }

  draw(series, least) {
    const most = Math.max(least, ...Object.values(series).flat())
    for (const [name, path] of this.#paths) {
      const values = series[name] ?? []
      const step = 100 / Math.max(1, values.length - 1)
      const place = (value, i) => `${(i * step).toFixed(1)} ${(23 - 22 * value / most).toFixed(1)}`
      path.setAttribute('d', values.length > 1 ? `M${values.map(place).join('L')}` : '')
    }
  }
}

// How much of something there is.
export function meter(part, whole) {
  const svg = make('svg', { class: 'meter', viewBox: '0 0 100 8', preserveAspectRatio: 'none', role: 'img',
    'aria-label': `${part} of ${whole}` })
  const width = whole > 0 ? Math.min(100, 100 * part / whole) : 0
  svg.append(make('rect', { class: 'ground', width: 100, height: 8, rx: 4 }),
    make('rect', { class: 'full', width, height: 8, rx: 4 }))
  return svg
}

// Bars of `buckets`, [{ label, count }].
export function histogram(buckets) {
  const width = 40 * buckets.length
  const most = Math.max(1, ...buckets.map(({ count }) => count))
  const svg = make('svg', { viewBox: `0 0 ${width} 150`, role: 'img',
    'aria-label': buckets.map(({ label, count }) => `${label}: ${count}`).join(', ') })
  buckets.forEach(({ label, count }, i) => {
    const height = count === 0 ? 1 : Math.max(3, 110 * count / most)
    const text = make('text', { x: 40 * i + 20, y: 146 })
    text.textContent = label
    const number = make('text', { x: 40 * i + 20, y: 126 - height })
    number.textContent = count || ''
    svg.append(make('rect', { x: 40 * i + 5, y: 130 - height, width: 30, height, rx: 2 }), text, number)
  })
  return svg
}
