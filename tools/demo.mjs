// What demo.sh runs: E2B's SDK against the cubed of $CUBE_HOME, with times. demo.mjs TEMPLATE
import { execFileSync } from 'node:child_process'
import { Sandbox } from '@e2b/code-interpreter'

const ROUNDS = 20
const [template] = process.argv.slice(2)
const cube = (...words) => JSON.parse(execFileSync(process.env.CUBE, ['--home', process.env.CUBE_HOME, '--json', ...words]))
const url = `http://${cube('status').http}`
const options = { apiUrl: url, sandboxUrl: url, apiKey: process.env.E2B_API_KEY ?? 'e2b_' + '0'.repeat(40), timeoutMs: 120_000 }

// Until the pool is what it is to be:.
function isFull() {
  const pool = cube('pool').pools.find((each) => each.template === template)
  if (pool === undefined) throw new Error(`the node has no pool of ${template}`)
  return pool.parked >= Math.min(1, pool.target)
}

const times = []
async function timed(name, act) {
  const start = performance.now()
  const value = await act()
  times.push([name, performance.now() - start])
  return value
}

while (!isFull()) { /* a look takes some milliseconds */ }
const sandbox = await timed('Sandbox.create, the first', () => Sandbox.create(template, options))
const { results, logs } = await timed('runCode, the first', () => sandbox.runCode('x = 6 * 7; print("hello from", __import__("socket").gethostname()); x'))
process.stdout.write(logs.stdout.join(''))
console.log('6 * 7 =', results[0].text)
await timed('runCode, the second', () => sandbox.runCode('x += 1; x'))
await timed('files.write, files.read', async () => {
  await sandbox.files.write('greeting.txt', 'hello')
  if (await sandbox.files.read('greeting.txt') !== 'hello') throw new Error('a file is not as it was written')
})
await timed('commands.run', () => sandbox.commands.run('echo $HOME; ls'))
await timed('kill', () => sandbox.kill())

// The claims: creates one after another by HTTP, and what a sandbox that has just been made has of memory.
const creates = []
let memory = 0
for (let i = 0; i < ROUNDS; ++i) {
  while (!isFull()) { /* the pool fills up between creates, as it does between clients */ }
  const start = performance.now()
  const one = await Sandbox.create(template, options)
  creates.push(performance.now() - start)
  memory = Math.max(memory, cube('sandbox', 'metrics', one.sandboxId).memory_bytes)
  await one.kill()
}
creates.sort((a, b) => a - b)
const median = creates[ROUNDS / 2], p90 = creates[Math.ceil(ROUNDS * 0.9) - 1]

const line = (name, value) => console.log(`${name.padEnd(48)}${value}`)
console.log()
for (const [name, ms] of times) line(name, `${ms.toFixed(1).padStart(8)} ms`)
console.log()
line(`create, ${ROUNDS} by the SDK over HTTP: median, p90`, `${median.toFixed(1)}, ${p90.toFixed(1)} ms   claim: < 60 ms  ${median < 60 ? 'met' : 'NOT MET'}`)
line('memory of its own of a fresh one, the most', `${(memory / 1e6).toFixed(2)} MB   claim: < 5 MB  ${memory < 5e6 ? 'met' : 'NOT MET'}`)
