// What of the SDK's public methods no other test of this folder calls: those without an object, those of
// addresses, and what is not done here.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { e2b, Node } from './node.mjs'

const { Sandbox } = e2b
let node, sandbox
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 1\n[api]\ndomain = "sandbox.test"\n' })
  sandbox = await node.create()
})
after(() => node.stop())

test('methods of the class, by id', async () => {
  const { options } = node
  const one = await node.create('base', { metadata: { of: 'statics' } })
  const id = one.sandboxId
  const info = await Sandbox.getInfo(id, options)
  assert.deepEqual([info.sandboxId, info.metadata], [id, { of: 'statics' }])
  assert.deepEqual(await Sandbox.getFullInfo(id, options), info)
  await Sandbox.setTimeout(id, 1000_000, options)
  assert.ok((await Sandbox.getInfo(id, options)).endAt > info.endAt)
  assert.equal((await Sandbox.getMetrics(id, options)).length, 1)
  await Sandbox.updateNetwork(id, { denyOut: ['10.0.0.0/8'] }, options)
  const snapshot = await Sandbox.createSnapshot(id, options)
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId, options), true)
  const [fork] = await Sandbox.fork(id, { ...options, count: 1 })
  assert.equal(await fork.isRunning(), true)
  assert.equal(await Sandbox.pause(id, options), true)
  assert.equal(await Sandbox.pause(id, options), false)
  const again = await Sandbox.connect(id, options)
  assert.equal((await again.commands.run('echo back')).stdout, 'back\n')
  assert.equal(await Sandbox.betaPause(id, options), true)
  for (const each of [id, fork.sandboxId]) {
    assert.equal(await Sandbox.kill(each, options), true)
    assert.equal(await Sandbox.kill(each, options), false)
  }
})

test('where a sandbox is', async () => {
  assert.equal(sandbox.getHost(3000), `3000-${sandbox.sandboxId}.sandbox.test`)
  assert.equal(sandbox.getMcpUrl(), `https://50005-${sandbox.sandboxId}.sandbox.test/mcp`)
  await sandbox.files.write('/etc/mcp-gateway/.token', 'of the gateway', { user: 'root' })
  assert.equal(await sandbox.getMcpToken(), 'of the gateway')
  assert.equal((await sandbox.getInfo()).sandboxDomain, 'sandbox.test')
  const form = new FormData()
  form.append('file', 'by a signed address')
  const upload = await sandbox.uploadUrl('signed.txt', { useSignatureExpiration: 600 })
  assert.equal((await fetch(upload, { method: 'POST', body: form })).status, 200)
  assert.equal(await (await fetch(await sandbox.downloadUrl('signed.txt'))).text(), 'by a signed address')
  // Neither of another path nor of another sandbox.
  const other = await node.create()
  assert.equal((await fetch((await sandbox.downloadUrl('signed.txt')).replace('signed.txt', '.bashrc'))).status >= 400, true)
  await assert.rejects(other.files.read('signed.txt'), e2b.NotFoundError)
  await other.kill()
})

test('what is not done here is said', async () => {
  await assert.rejects(sandbox.pause({ keepMemory: false }), /400.*memory/)
  await assert.rejects(Sandbox.create('base', { ...node.options, lifecycle: { onTimeout: { action: 'pause', keepMemory: false } } }), /400/)
  const { Secret } = e2b
  for (const ask of [() => Secret.list(node.options).nextItems(), () => Secret.create('a', 'b', node.options),
    () => Secret.update('a', 'b', node.options), () => Secret.getInfo('a', node.options), () => Secret.exists('a', node.options),
    () => Secret.destroy('a', node.options)]) {
    await assert.rejects(ask, /501.*secrets/, `${ask}`)
  }
  assert.equal(Secret.fill('a'), '${e2b.secrets.a}')
  const iam = { tokens: { T: Secret.iamToken({ audience: 'a', tokenType: 'jwt' }) } }
  await assert.rejects(node.create('base', { iam }), /400.*iam.tokens/)
  await assert.rejects(node.create('base', { network: { rules: { 'a.test': [{ transform: { headers: { a: 'b' } } }] } } }), /501.*rules/)
  assert.equal(await sandbox.isRunning(), true)
})

test('a client that gives up', async () => {
  const stopped = new AbortController()
  const run = sandbox.commands.run('echo begun; exec sleep 1000', { signal: stopped.signal, timeoutMs: 0, onStdout: () => stopped.abort() })
  await assert.rejects(run)
  assert.equal((await sandbox.commands.run('echo others go on')).stdout, 'others go on\n')
})
