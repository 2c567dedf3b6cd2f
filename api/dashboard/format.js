// Numbers and times as people read them, and the numbers of Prometheus' text.

export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`
}

export function bytes(number) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  let unit = 0
  while (number >= 1000 && unit + 1 < units.length) {
    number /= 1000
    ++unit
  }
  return `${number.toFixed(unit === 0 || number >= 100 ? 0 : 1)} ${units[unit]}`
}

// Counts between the bounds of a histogram, whose own buckets are of all that is less; in ms. Those before
// the first and behind the last that has something are left out, but for one.
export function bucketsOf(text, name) {
  const found = []
  const line = new RegExp(`^${name}_bucket\\{le="([^"]+)"\\} (\\d+)`, 'gm')
  for (const [, bound, count] of text.matchAll(line)) found.push({ bound: Number(bound.replace('+Inf', 'Infinity')), count: Number(count) })
  const counts = found.map(({ bound, count }, i) => ({
    label: Number.isFinite(bound) ? `≤${Number((bound * 1000).toPrecision(3))}` : 'more',
    count: count - (i === 0 ? 0 : found[i - 1].count),
  }))
  const first = counts.findIndex(({ count }) => count > 0)
  if (first < 0) return []
  const last = counts.findLastIndex(({ count }) => count > 0)
  return counts.slice(Math.max(0, first - 1), last + 2)
}
