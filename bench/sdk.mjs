// The SDK's own view (sdk.sh): milliseconds of Sandbox.create, and of it with a first command's
// output, one after another with a parked clone there.
import os from 'node:os'
import { Node } from '../tests/api/node.mjs'

const rounds = Number(process.argv[2])
const warmUp = 3
const node = await Node.start({ config: '[pool]\nsize = 4\n' })
const figures = { 'Sandbox.create': [], "... and commands.run('echo')": [], 'kill': [] }

async function poolIsFull() {
  for (;;) {
    const { pools } = await node.cube('pool')
    if (pools.every((pool) => pool.parked >= pool.target)) return
  }
}

try {
  for (let round = 0; round < warmUp + rounds; ++round) {
    await poolIsFull()
    const began = performance.now()
    const sandbox = await node.create()
    const created = performance.now()
    const { stdout } = await sandbox.commands.run(`echo ${round}`)
    const answered = performance.now()
    if (stdout !== `${round}\n`) throw new Error(`the guest said ${stdout}`)
    await sandbox.kill()
    if (round < warmUp) continue
    const [create, echo, kill] = Object.values(figures)
    create.push(created - began)
    echo.push(answered - began)
    kill.push(performance.now() - answered)
  }
} finally {
  await node.stop()
}

const [cpu] = os.cpus()
console.log(`${cpu.model}, ${os.cpus().length} processors, Linux ${os.release()}, load ` +
  `${os.loadavg()[0].toFixed(1)}, ${rounds} rounds\n`)
console.log('| ms | p50 | p90 | p99 | least | most |\n|---|---|---|---|---|---|')
for (const [name, values] of Object.entries(figures)) {
  values.sort((a, b) => a - b)
  const at = (part) => values[Math.min(values.length - 1, Math.floor(values.length * part))].toFixed(1)
  console.log(`| ${name} | ${at(0.5)} | ${at(0.9)} | ${at(0.99)} | ${at(0)} | ${at(1)} |`)
}
