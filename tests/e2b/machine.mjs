// A clone of a template, made for a test file, and the SDK's view of it. What the SDK says by HTTP to
// a local port goes to the guest's daemon by vsock, as it does behind a node's proxy.
import { execFile, spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'

export { News } from './news.mjs'

const run = promisify(execFile)
const require = createRequire(path.join(process.env.E2B_PACKAGES, 'package.json'))
export const e2b = require('e2b')

const daemonPort = 49983
const forwardPort = 49982
const vmm = path.resolve(process.env.CUBE_VMM)

// Connects to a port of the guest; `greeting` is what has to be said, and answered by a line, after.
function connectToGuest(socketPath, port, greeting) {
  const socket = net.connect(socketPath)
  const lines = [`CONNECT ${port}\n`, ...(greeting ? [greeting] : [])]
  return new Promise((resolve, reject) => {
    let received = Buffer.alloc(0)
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('the guest has closed')))
    const onData = (bytes) => {
      received = Buffer.concat([received, bytes])
      const end = received.indexOf('\n')
      if (end < 0) return
      const line = received.subarray(0, end).toString()
      received = received.subarray(end + 1)
      if (!line.startsWith('OK')) return reject(new Error(line))
      if (lines.length > 0) return socket.write(lines.shift())
      socket.off('data', onData)
      socket.pause()
      if (received.length > 0) socket.unshift(received)
      resolve(socket)
    }
    socket.on('data', onData)
    socket.once('connect', () => socket.write(lines.shift()))
  })
}

// A local port whose connections go to one of the guest's.
async function openBridge(socketPath, port, greeting) {
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, async (client) => {
    client.on('error', () => {})
    try {
      const guest = await connectToGuest(socketPath, port, greeting)
      guest.on('error', () => client.destroy())
      client.on('close', () => guest.destroy())
      guest.on('close', () => client.destroy())
      client.pipe(guest)
      guest.pipe(client)
    } catch {
      client.destroy()
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

export class Machine {
  static async start() {
    const machine = new Machine()
    machine.home = await mkdtemp('/tmp/cube-e2b-')
    machine.env = { ...process.env, CUBE_HOME: machine.home }
    machine.vsock = path.join(machine.home, 'vsock')
    await run(vmm, ['template', 'build', 'e2b', '--kernel', process.env.CUBE_KERNEL,
      '--initrd', process.env.CUBE_INITRD, '--rootfs', process.env.CUBE_ROOTFS,
      '--memory', '512', '--vsock', path.join(machine.home, 'template-vsock')],
      { env: machine.env })
    machine.process = spawn(vmm, ['clone', 'e2b', '--vsock', machine.vsock],
      { env: machine.env, stdio: ['ignore', 'pipe', 'inherit'] })
    machine.ended = new Promise((resolve) => machine.process.once('exit', resolve))
    machine.id = await new Promise((resolve, reject) => {
      machine.process.stdout.once('data', (bytes) => resolve(bytes.toString().trim()))
      machine.process.once('exit', () => reject(new Error('the clone ended')))
    })
    machine.bridge = await openBridge(machine.vsock, daemonPort)
    machine.url = `http://127.0.0.1:${machine.bridge.address().port}`
    return machine
  }

  // The SDK's sandbox. There is no control plane, so it is told what that would have said.
  sandbox(options = {}) {
    return new e2b.Sandbox({
      sandboxId: this.id, sandboxUrl: this.url, envdVersion: '0.6.13',
      apiKey: 'e2b_' + '0'.repeat(40), ...options,
    })
  }

  // A request to a port of the guest's localhost; an error if nobody listens there.
  async fetch(port, target) {
    const server = await openBridge(this.vsock, forwardPort, `CONNECT ${port}\n`)
    this.forwards = [...(this.forwards ?? []), server]
    return fetch(`http://127.0.0.1:${server.address().port}${target}`)
  }

  // From then on the daemon has a token, which this is, and the variable FROM_INIT.
  async makeToken() {
    const token = 'a-token-of-this-test'
    const answer = await fetch(`${this.url}/init`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ accessToken: token, envVars: { FROM_INIT: 'yes' } }),
    })
    if (answer.status !== 204) throw new Error(`/init is answered ${answer.status}`)
    return token
  }

  async stop() {
    for (const server of [this.bridge, ...(this.forwards ?? [])]) server.close()
    await run(vmm, ['stop', this.id], { env: this.env })
    await this.ended
    await rm(this.home, { recursive: true, force: true })
  }
}
