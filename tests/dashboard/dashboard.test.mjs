import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { Node } from '../api/node.mjs'
import { Browser } from './browser.mjs'

let node, browser, page
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 2\n' })
  browser = await Browser.start()
})
after(async () => {
  await browser.stop()
  await node.stop()
})
// Nothing is wrong in the page, and it has asked nobody else.
afterEach(() => {
  assert.deepEqual(page.complaints, [])
  assert.deepEqual(page.requests.filter((url) => !url.startsWith(node.url) && !url.startsWith('blob:')), [])
})

const row = (id) => `#sandboxes tr[data-id="${id}"]`
const stateIs = (id, state) => page.until((selector, wanted) =>
  document.querySelector(selector)?.dataset.state === wanted, `${row(id)} .badge`, state)
const press = (id, action) => page.click(`${row(id)} button[data-action="${action}"]`)
const text = (selector) => page.run((s) => document.querySelector(s).innerText, selector)
// Closes the terminal, with whatever runs on it.
const closeTerminal = async (sandbox) => {
  const [process] = await sandbox.commands.list()
  const shell = await sandbox.commands.connect(process.pid)
  // Both at once: it may have ended before the click has been answered.
  await Promise.all([assert.rejects(shell.wait(), /signal: killed|exit status/), page.click('#terminal-close')])
  assert.equal(await page.run(() => document.getElementById('terminal').hidden), true)
}
const screenHas = (wanted) => page.until((w) =>
  document.querySelector('.xterm-rows')?.innerText.replaceAll('\u00a0', ' ').includes(w), wanted)

test('shows sandboxes, what they use, pools, templates and creates', async () => {
  const sandbox = await node.create('base', { metadata: { owner: '<img src=x onerror=alert(1)>' } })
  page = await browser.open(node.url)
  await stateIs(sandbox.sandboxId, 'running')
  assert.match(await text(row(sandbox.sandboxId)), /base.*running/s)
  assert.match(await text(`${row(sandbox.sandboxId)} small`), /^owner=<img src=x/)
  assert.equal(await page.run(() => document.querySelectorAll('#sandboxes img').length), 0)
  // The node looks every five seconds.
  await page.until((s) => /[0-9] %[^]*[0-9] MB/.test(document.querySelector(s).innerText), row(sandbox.sandboxId))
  await page.until((s) => document.querySelector(s)?.getAttribute('d').startsWith('M'), `${row(sandbox.sandboxId)} path.cpu`)
  await page.until(() => document.querySelectorAll('#creates rect').length > 0)
  assert.match(await page.run(() => document.querySelector('#creates svg').getAttribute('aria-label')), /: 1/)
  await page.until(() => document.querySelector('#pools tbody').innerText.includes('2 of 2'))
  assert.match(await text('#templates tbody'), /base\s+512\s+1/)
  assert.match(await text('#figures'), /running/)
  assert.equal(await text('#link'), 'live')
  await sandbox.kill()
  await page.until((s) => document.querySelector(s) === null, row(sandbox.sandboxId))
})

test('a terminal: what is typed is carried out, sizes are passed on, closing ends the shell', async () => {
  const sandbox = await node.create()
  const id = sandbox.sandboxId
  await press(id, 'terminal')
  await page.until(() => document.getElementById('terminal-state').textContent === 'connected')
  await screenHas('$')
  await page.type('echo cube-$((6*7))\n')
  await screenHas('cube-42')
  await page.type('stty size; tput cols\n')
  const columns = await page.until(() => /\n(\d+) (\d+)\s+\2/.exec(document.querySelector('.xterm-rows').innerText.replaceAll('\u00a0', ' '))?.[2])
  assert.ok(Number(columns) > 80, columns)
  assert.equal((await sandbox.commands.list()).length, 1)
  // The shell's children are told of a new size.
  await page.type('(trap "stty size; exit" WINCH; echo ready; while :; do sleep 0.1; done)\n')
  await screenHas('\nready')
  await page.call('Emulation.setDeviceMetricsOverride', { width: 800, height: 700, deviceScaleFactor: 1, mobile: false })
  const narrow = await page.until(() => /\nready\s+\d+ (\d+)/.exec(document.querySelector('.xterm-rows').innerText.replaceAll('\u00a0', ' '))?.[1])
  assert.ok(Number(narrow) < Number(columns), narrow)
  await page.call('Emulation.clearDeviceMetricsOverride')
  await page.type('exit\n')
  await page.until(() => document.getElementById('terminal-state').textContent.startsWith('ended: exit status'))
  await page.click('#terminal-close')
  assert.equal(await page.run(() => document.getElementById('terminal').hidden), true)
  await press(id, 'terminal')
  await page.until(() => document.getElementById('terminal-state').textContent === 'connected')
  await closeTerminal(sandbox)
  await sandbox.kill()
})

test('pause, resume, fork, kill, create', async () => {
  const sandbox = await node.create()
  const id = sandbox.sandboxId
  const state = async () => (await node.cube('sandbox', 'info', id)).sandbox.state
  await press(id, 'pause')
  await stateIs(id, 'paused')
  assert.equal(await state(), 'paused')
  await press(id, 'resume')
  await stateIs(id, 'running')
  assert.equal(await state(), 'running')
  await press(id, 'fork')
  await page.until(() => document.querySelectorAll('#sandboxes tbody tr').length === 2)
  const ids = () => page.run(() => [...document.querySelectorAll('#sandboxes tbody tr')].map((each) => each.dataset.id))
  for (const each of await ids()) {
    await press(each, 'kill')
    await page.until((s) => document.querySelector(s).innerText === 'Really?', `${row(each)} button[data-action="kill"]`)
    assert.ok((await ids()).includes(each))
    await press(each, 'kill')
    await page.until((s) => document.querySelector(s) === null, row(each))
  }
  assert.deepEqual((await node.cube('sandbox', 'ls')).sandboxes, [])
  await page.click('#templates button[data-template="base"]')
  await page.until(() => document.querySelectorAll('#sandboxes tbody tr').length === 1)
  const [made] = (await node.cube('sandbox', 'ls')).sandboxes
  assert.deepEqual(await ids(), [made.id])
  // What cannot be done is said.
  await press(made.id, 'kill')
  await node.cube('sandbox', 'kill', made.id)
  await page.until((s) => document.querySelector(s) === null, row(made.id))
})

test('files: a strict policy, their types, nothing else; pages of guests are kept apart', async () => {
  const answer = await fetch(node.url)
  const policy = answer.headers.get('content-security-policy')
  for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]) assert.ok(policy.includes(part), policy)
  assert.equal(answer.headers.get('content-type'), 'text/html; charset=utf-8')
  assert.equal(answer.headers.get('x-content-type-options'), 'nosniff')
  assert.equal((await fetch(`${node.url}/dashboard/xterm.mjs`)).headers.get('content-type'), 'text/javascript; charset=utf-8')
  for (const name of ['none.js', '..%2fapi.db', 'index.html%2f']) assert.equal((await fetch(`${node.url}/dashboard/${name}`)).status, 404, name)
  assert.equal((await node.fetch('GET', '/cube/status?since=x')).status, 400)
  const sandbox = await node.create()
  await sandbox.files.write('/tmp/page.html', '<script>fetch("/sandboxes")</script>')
  const download = await fetch(await sandbox.downloadUrl('/tmp/page.html', { useSignatureExpiration: 60_000 }))
  assert.equal(download.status, 200)
  assert.match(download.headers.get('content-security-policy'), /sandbox/)
  await sandbox.kill()
})

test('with keys it asks for one, keeps it in this tab, and forgets it', async () => {
  const { key } = await node.cube('key', 'create', 'dashboard')
  node.options.apiKey = key
  assert.equal((await fetch(node.url)).status, 200)
  assert.equal((await fetch(`${node.url}/cube/status`)).status, 401)
  await page.until(() => !document.getElementById('key').hidden)
  await page.click('#key-text')
  await page.type('e2b_wrong\n')
  await page.until(() => document.getElementById('notice').textContent === 'the API key is not valid')
  await page.click('#key-text')
  await page.type(`${key}\n`)
  await page.until(() => !document.getElementById('node').hidden && document.getElementById('notice').hidden)
  const sandbox = await node.create()
  await stateIs(sandbox.sandboxId, 'running')
  await press(sandbox.sandboxId, 'terminal')
  await page.until(() => document.getElementById('terminal-state').textContent === 'connected')
  await closeTerminal(sandbox)
  await sandbox.kill()
  await page.click('#forget')
  await page.until(() => !document.getElementById('key').hidden)
  assert.equal(await page.run(() => sessionStorage.length + localStorage.length + document.cookie.length), 0)
  // The browser itself notes the refusals.
  page.complaints = page.complaints.filter((each) => !/status of 401/.test(each))
})
