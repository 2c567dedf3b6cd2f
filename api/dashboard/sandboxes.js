// The table of sandboxes. Rows stay as long as their sandboxes, so that nothing moves under a click.
import { Sparkline } from './charts.js'
import { bytes, duration } from './format.js'

const make = (name, className, ...inner) => {
  const node = document.createElement(name)
  if (className) node.className = className
  node.append(...inner)
  return node
}

// A chart with its latest number beside it.
class Trend {
  #spark
  #text = make('span')

  constructor(...names) {
    this.#spark = new Sparkline(names)
    this.node = make('td', '', make('div', 'spark', this.#spark.node, this.#text))
  }

  show(series, least, text) {
    this.#spark.draw(series, least)
    this.#text.textContent = text
  }
}

class Row {
  #id = make('span')
  #note = make('small')
  #template = make('td')
  #state = make('span', 'badge')
  #age = make('td')
  #left = make('td')
  #cpu = new Trend('cpu')
  #memory = new Trend('memory')
  #network = new Trend('in', 'out')
  #buttons = new Map()
  #busy = false

  constructor(id, actions) {
    this.#id.textContent = id
    const cell = make('td', 'actions')
    for (const [name, { label, act, sure }] of Object.entries(actions)) {
      const button = make('button', '', label)
      button.type = 'button'
      button.dataset.action = name
      button.addEventListener('click', () => this.#press(button, label, () => act(id), sure))
      // Whoever leaves it has thought better of it.
      for (const event of ['pointerleave', 'blur']) button.addEventListener(event, () => this.#calm(button, label))
      this.#buttons.set(name, button)
      cell.append(button)
    }
    this.node = make('tr', '', make('td', 'id', this.#id, this.#note), this.#template, make('td', '', this.#state),
      this.#age, this.#left, this.#cpu.node, this.#memory.node, this.#network.node, cell)
    this.node.dataset.id = id
  }

  #calm(button, label) {
    button.classList.remove('sure')
    button.textContent = label
  }

  async #press(button, label, act, sure) {
    if (sure && !button.classList.contains('sure')) {
      button.classList.add('sure')
      button.textContent = sure
      return
    }
    this.#calm(button, label)
    this.#busy = true
    for (const each of this.#buttons.values()) each.disabled = true
    await act()
    this.#busy = false
    for (const each of this.#buttons.values()) each.disabled = false
  }

  show(sandbox, history, now) {
    const { state } = sandbox
    const metadata = Object.entries(sandbox.metadata).map(([key, value]) => `${key}=${value}`).join(' ')
    this.#note.textContent = sandbox.reason || metadata
    this.#template.textContent = sandbox.template
    this.#state.textContent = state
    this.#state.dataset.state = state
    this.#age.textContent = duration(now - sandbox.created_ms)
    const ends = state === 'running' && sandbox.deadline_ms > 0
    this.#left.textContent = ends ? duration(sandbox.deadline_ms - now) : '–'
    const runs = state !== 'paused' && state !== 'dead'
    const latest = (list, text) => (runs && list.length > 0 ? text(list.at(-1)) : '–')
    this.#cpu.show({ cpu: history.cpu }, 10, latest(history.cpu, (x) => `${x.toFixed(x < 10 ? 1 : 0)} %`))
    this.#memory.show({ memory: history.memory }, 1e6, latest(history.memory, bytes))
    this.#network.show({ in: history.in, out: history.out }, 1000,
      latest(history.in, (x) => `${bytes(x + history.out.at(-1))}/s`))
    const shown = { terminal: state === 'running', pause: state === 'running', fork: state === 'running',
      resume: state === 'paused', kill: state !== 'dead' }
    for (const [name, button] of this.#buttons) {
      button.hidden = !shown[name]
      if (!this.#busy) button.disabled = false
    }
  }
}

export class SandboxTable {
  #rows = new Map()

  // `actions`: { name: { label, act(id), sure: what it asks first } }.
  constructor(body, actions) {
    this.body = body
    this.actions = actions
  }

  show(sandboxes, history, now) {
    const sorted = sandboxes.toSorted((a, b) => b.created_ms - a.created_ms || (a.id < b.id ? -1 : 1))
    const ids = new Set(sorted.map(({ id }) => id))
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue
      row.node.remove()
      this.#rows.delete(id)
    }
    sorted.forEach((sandbox, i) => {
      let row = this.#rows.get(sandbox.id)
      if (row === undefined) {
        row = new Row(sandbox.id, this.actions)
        this.#rows.set(sandbox.id, row)
      }
      row.show(sandbox, history.of(sandbox.id), now)
      if (this.body.children[i] !== row.node) this.body.insertBefore(row.node, this.body.children[i] ?? null)
    })
  }
}
