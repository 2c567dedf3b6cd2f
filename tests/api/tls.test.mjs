// HTTPS with a certificate by `cube tls init`, whose authority node trusts from its start (run.sh).
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import tls from 'node:tls'
import { Node } from './node.mjs'

const folder = path.dirname(process.env.NODE_EXTRA_CA_CERTS)
let node
before(async () => { node = await Node.start({ config: '[pool]\nsize = 1\n', tls: folder }) })
after(() => node.stop())

async function connect(options = {}) {
  const [host, port] = node.address.split(':')
  const socket = tls.connect({ host, port: Number(port), servername: 'localhost', ...options })
  await once(socket, 'secureConnect')
  return socket
}
async function ask(socket, target = '/health') {
  socket.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  const [bytes] = await once(socket, 'data')
  return bytes.toString()
}

test('the SDK by HTTPS', async () => {
  const sandbox = await node.create()
  assert.equal((await sandbox.commands.run('echo by TLS')).stdout, 'by TLS\n')
  await sandbox.files.write('large', 'x'.repeat(3 << 20))
  assert.equal((await sandbox.files.read('large')).length, 3 << 20)
  await sandbox.kill()
})

test('names that it is for, and others', async () => {
  for (const servername of ['localhost', 'sandbox.test', 'api.sandbox.test', '49983-abc.sandbox.test']) {
    const socket = await connect({ servername })
    assert.equal(socket.authorized, true)
    assert.match(await ask(socket), /^HTTP\/1.1 200 OK\r\n/)
    socket.destroy()
  }
  await assert.rejects(connect({ servername: 'elsewhere.test' }), /altnames/)
  await assert.rejects(connect({ ca: [] }), { code: /SELF_SIGNED|UNABLE/ })
})

test('versions before 1.2, plain text and clients that do not shake hands', async () => {
  await assert.rejects(connect({ maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' }))
  const plain = await node.connect()
  plain.on('error', () => {})
  plain.write('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n')
  let answer = ''
  plain.on('data', (bytes) => { answer += bytes.toString('latin1') })
  await once(plain, 'close')
  assert.ok(!answer.includes('HTTP/1.1 200'))
  const silent = await node.connect()
  assert.match(await ask(await connect()), /200 OK/)
  silent.destroy()
})

test('another certificate without another start', async () => {
  const before = await connect()
  const old = before.getPeerCertificate().fingerprint256
  assert.match(await ask(before), /200 OK/)
  const made = await node.cube('tls', 'init', '--domain', 'sandbox.test', '--name', 'other.test')
  assert.deepEqual(made.names.slice(0, 6), ['localhost', '127.0.0.1', '::1', 'sandbox.test', '*.sandbox.test', 'other.test'])
  assert.equal(await readFile(made.authority, 'utf8'), await readFile(path.join(folder, 'ca.pem'), 'utf8'))
  assert.equal((await connect()).getPeerCertificate().fingerprint256, old)
  await node.cube('reload')
  const now = await connect({ servername: 'other.test' })
  assert.notEqual(now.getPeerCertificate().fingerprint256, old)
  assert.match(await ask(now), /200 OK/)
  // Who was there is not thrown out.
  assert.match(await ask(before), /200 OK/)
  assert.equal(node.pid, (await node.cube('status')).pid)
})

test('a certificate that does not fit is refused, and the one of before stays', async () => {
  const before = (await connect()).getPeerCertificate().fingerprint256
  const file = path.join(node.home, 'tls/cert.pem')
  const good = await readFile(file)
  for (const wrong of ['', 'no certificate', await readFile(path.join(folder, 'cert.pem'))]) {
    await writeFile(file, wrong)
    await assert.rejects(node.cube('reload'), (error) => /\.pem/.test(error.stdout))
    assert.equal((await connect()).getPeerCertificate().fingerprint256, before)
  }
  await writeFile(file, good)
  await node.cube('reload')
})
