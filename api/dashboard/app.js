// The page: asks the node every two seconds and shows what it says.
import { histogram, meter } from './charts.js'
import { Client, Refusal } from './client.js'
import { bucketsOf, bytes } from './format.js'
import { History } from './history.js'
import { SandboxTable } from './sandboxes.js'
import { TerminalPanel } from './terminal.js'

const PERIOD_MS = 2000

const element = (id) => document.getElementById(id)
const client = new Client()
const history = new History()
const terminal = new TerminalPanel(client)
let timer = 0
let asking = false
let again = false

function notice(text) {
  element('notice').textContent = text
  element('notice').hidden = !text
}

function link(state, text) {
  element('link').dataset.state = state
  element('link').textContent = text
}

// Does it, says why if it cannot be done, and looks at once at what has come of it.
const doing = (act) => async (...words) => {
  notice('')
  try {
    await act(...words)
  } catch (error) {
    notice(error.message)
  }
  await refresh()
}

const table = new SandboxTable(element('sandboxes').tBodies[0], {
  terminal: { label: 'Terminal', act: doing((id) => terminal.open(id)) },
  fork: { label: 'Fork', act: doing((id) => client.fork(id)) },
  pause: { label: 'Pause', act: doing((id) => client.pause(id)) },
  resume: { label: 'Resume', act: doing((id) => client.resume(id)) },
  kill: { label: 'Kill', act: doing((id) => client.kill(id)), sure: 'Really?' },
})

function figures({ node }) {
  const memory = node.memory_mib
  const all = [['running', node.running], ['paused', node.paused], ['dead', node.dead], ['parked', node.parked],
    ['creates', node.creates], ['failed creates', node.failed_creates],
    ['memory of guests, together', bytes(memory.given * 2 ** 20)], ['available on the host', bytes(memory.available * 2 ** 20)]]
  element('figures').replaceChildren(...all.map(([name, value]) => {
    const figure = document.createElement('div')
    figure.className = 'figure'
    const number = document.createElement('b')
    number.textContent = value
    const label = document.createElement('span')
    label.textContent = name
    figure.append(number, label)
    return figure
  }))
}

function rows(id, list, cells) {
  element(id).tBodies[0].replaceChildren(...list.map((item) => {
    const row = document.createElement('tr')
    for (const [content, className] of cells(item)) {
      const cell = row.insertCell()
      cell.append(content)
      if (className) cell.className = className
    }
    return row
  }))
}

function pools({ pools: list }) {
  rows('pools', list, (pool) => {
    const parked = document.createElement('span')
    parked.append(meter(pool.parked, pool.target), ` ${pool.parked} of ${pool.target}`)
    return [[pool.template], [parked], [pool.hits, 'number'], [pool.misses, 'number']]
  })
}

// Only when they are others: a button that is being pressed stays.
let shownTemplates = ''
function templates({ templates: list }) {
  const text = JSON.stringify(list)
  if (text === shownTemplates) return
  shownTemplates = text
  rows('templates', list, (one) => {
    const create = document.createElement('button')
    create.type = 'button'
    create.textContent = 'Create'
    create.disabled = Boolean(one.error)
    create.dataset.template = one.name
    create.addEventListener('click', doing(() => client.create(one.name)))
    return [[one.name], [one.memory_mib, 'number'], [one.cpus, 'number'],
      [one.error || one.created.slice(0, 16).replace('T', ' ')], [create, 'actions']]
  })
}

let shownCreates
function creates(text) {
  const buckets = bucketsOf(text, 'cube_create_seconds')
  const now = JSON.stringify(buckets)
  if (now === shownCreates) return
  shownCreates = now
  const none = document.createElement('p')
  none.className = 'quiet'
  none.textContent = 'None over HTTP yet.'
  const unit = document.createElement('p')
  unit.className = 'quiet'
  unit.textContent = 'Milliseconds from request to answer, since the node was started.'
  element('creates').replaceChildren(...(buckets.length ? [histogram(buckets), unit] : [none]))
}

function asksForKey(yes) {
  element('key').hidden = !yes
  element('node').hidden = yes
  element('forget').hidden = yes || !client.key
}

async function ask() {
  try {
    const [status, metrics] = await Promise.all([client.status(history.latestMs), client.metrics()])
    history.add(status)
    asksForKey(false)
    figures(status)
    table.show(status.sandboxes, history, status.now_ms)
    element('no-sandboxes').hidden = status.sandboxes.length > 0
    pools(status)
    templates(status)
    creates(metrics)
    link('running', status.node.draining ? 'draining' : 'live')
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) {
      link('waiting', 'locked')
      if (client.key) notice(error.message)
      asksForKey(true)
      return false
    }
    link('lost', 'no answer')
    notice(error.message)
  }
  return true
}

// One question at a time; who asks meanwhile is answered by one more.
async function refresh() {
  if (asking) {
    again = true
    return
  }
  clearTimeout(timer)
  asking = true
  let goes = true
  do {
    again = false
    goes = await ask()
  } while (again)
  asking = false
  if (goes && !document.hidden) timer = setTimeout(refresh, PERIOD_MS)
}

element('key').addEventListener('submit', (event) => {
  event.preventDefault()
  client.key = element('key-text').value.trim()
  element('key-text').value = ''
  notice('')
  refresh()
})
element('forget').addEventListener('click', () => {
  client.key = ''
  terminal.close()
  refresh()
})
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh() })
refresh()
