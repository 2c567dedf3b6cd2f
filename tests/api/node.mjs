// A cubed of a test file: its home, a template of the Debian image, and what the SDK is told of it.
import { execFile } from 'node:child_process'
import { createRequire } from 'node:module'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import net from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const require = createRequire(path.join(process.env.E2B_PACKAGES, 'package.json'))
export const e2b = require('e2b')
const vmm = path.resolve(process.env.CUBE_VMM)

export class Node {
  // `config`: TOML. `rootfs`: of the template; `more`: options of its machine. `tls`: a folder with
  // certificates, which is copied.
  static async start({
    config = '', rootfs = process.env.CUBE_ROOTFS, template = 'base', more = [], tls } = {}) {
    const node = new Node()
    node.template = template
    node.home = await mkdtemp('/tmp/cube-api-')
    node.env = { ...process.env, CUBE_HOME: node.home }
    node.config = path.join(node.home, 'cubed.toml')
    if (tls) {
      await cp(tls, path.join(node.home, 'tls'), { recursive: true })
      node.scheme = 'https'
      config += `[api]\ntls_certificate = "${node.home}/tls/cert.pem"\ntls_key = "${node.home}/tls/key.pem"\n`
    }
    await writeFile(node.config, config)
    await run(vmm, ['template', 'build', template, '--kernel', process.env.CUBE_KERNEL,
      '--initrd', process.env.CUBE_INITRD, '--rootfs', rootfs, '--memory', '512',
      '--vsock', path.join(node.home, 'template-vsock'), ...more], { env: node.env })
    await node.up()
    return node
  }

  // What tools/images.sh puts into a home: without it no template is built of another.
  async putImages() {
    await mkdir(path.join(this.home, 'images'))
    const images = { vmlinux: 'CUBE_KERNEL', 'agent-initramfs.cpio': 'CUBE_INITRD', 'debian.ext4': 'CUBE_ROOTFS' }
    for (const [name, variable] of Object.entries(images)) {
      await symlink(path.resolve(process.env[variable]), path.join(this.home, 'images', name))
    }
  }

  async up() {
    const status = await this.cube('up', '--vmm', vmm, '--config', this.config,
      '--listen', '127.0.0.1:0')
    this.pid = status.pid
    this.address = status.http
    this.url = `${this.scheme ?? 'http'}://${status.http}`
    this.options = { apiUrl: this.url, sandboxUrl: this.url, apiKey: 'e2b_' + '0'.repeat(40) }
    return status
  }

  // The client `cube`; its answer.
  async cube(...words) {
    const { stdout } = await run(process.env.CUBE, ['--home', this.home, '--json', ...words])
    return JSON.parse(stdout)
  }

  create(template = this.template, options = {}) {
    return e2b.Sandbox.create(template, { ...this.options, ...options })
  }

  // A request to the control plane.
  async fetch(method, target, { body, headers = {}, key = this.options.apiKey } = {}) {
    const response = await fetch(this.url + target, {
      method, body: body === undefined ? undefined : JSON.stringify(body),
      headers: { ...(key && { 'x-api-key': key }), 'content-type': 'application/json', ...headers },
    })
    const text = await response.text()
    let json
    try { json = JSON.parse(text) } catch { /* not every answer is */ }
    return { status: response.status, text, json, headers: response.headers }
  }

  // A request to a server in a sandbox.
  async fetchGuest(sandbox, port, target, init = {}) {
    return fetch(this.url + target, { ...init,
      headers: { ...init.headers, 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': `${port}` } })
  }

  // A connection to the endpoint, for what fetch() would not say.
  async connect() {
    const [host, port] = this.address.split(':')
    const socket = net.connect(Number(port), host)
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return socket
  }

  async stop() {
    for (const sandbox of (await this.cube('sandbox', 'ls')).sandboxes) {
      await this.cube('sandbox', 'kill', sandbox.id)
    }
    await this.cube('down')
    await rm(this.home, { recursive: true, force: true })
  }
}

// Calls until it is so; what comes in between is the other side's doing, not time.
export async function until(isSo) {
  for (;;) {
    const value = await isSo()
    if (value) return value
  }
}
