// Volumes mounted in sandboxes: the same files for all that have them, whatever becomes of a sandbox.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { e2b, Node, until } from './node.mjs'

const { Sandbox, Volume } = e2b
let node
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 2\n' })
  process.env.E2B_VOLUME_API_URL = node.url
})
after(() => node.stop())

const sh = async (sandbox, script, options) => (await sandbox.commands.run(script, options)).stdout
const folderOf = (volume) => path.join(node.home, 'volumes', volume.volumeId)
async function killAll(...sandboxes) {
  for (const each of sandboxes) await Sandbox.kill(each.sandboxId, node.options)
}

test('what one writes others read at the same time, and so does the content API', async () => {
  const volume = await Volume.create('shared', node.options)
  await volume.writeFile('/from-api', 'api')
  const [one, other] = await Promise.all([
    node.create('base', { volumeMounts: { '/mnt/data': volume } }),
    node.create('base', { volumeMounts: { '/home/user/deep/er/': 'shared' } })])
  assert.equal(await sh(one, 'cat /mnt/data/from-api; stat -c " %U %a" /mnt/data/from-api /mnt/data'),
    'api user 644\n user 755\n')
  await one.files.write('/mnt/data/a/b', 'one')
  assert.equal(await other.files.read('/home/user/deep/er/a/b'), 'one')
  await sh(other, 'echo more >>/home/user/deep/er/a/b')
  assert.equal(await volume.readFile('/a/b'), 'onemore\n')
  assert.equal((await volume.getInfo('/a/b')).uid, 1000)
  assert.equal((await stat(path.join(folderOf(volume), 'a/b'))).uid, 1000)
  // Root of a sandbox is no more than the files' owner.
  await sh(one, 'cd /mnt/data && echo x >root && chmod 4755 root && ln root hard && mkfifo pipe', { user: 'root' })
  await assert.rejects(one.commands.run('chown 0:0 /mnt/data/root', { user: 'root' }), (error) => error.stderr.includes('Operation not permitted'))
  await assert.rejects(one.commands.run('mknod /mnt/data/disk b 254 0', { user: 'root' }), (error) => error.stderr.includes('Operation not permitted'))
  assert.deepEqual(await sh(other, 'cd /home/user/deep/er; stat -c "%U %a %h" root; cat hard'), 'user 755 2\nx\n')
  assert.equal((await volume.list('/')).length, 5)
  await sh(other, 'rm -r /home/user/deep/er/a')
  assert.equal(await volume.exists('/a'), false)
  assert.deepEqual((await one.getInfo()).volumeMounts, [{ name: 'shared', path: '/mnt/data' }])
  assert.deepEqual((await other.getInfo()).volumeMounts, [{ name: 'shared', path: '/home/user/deep/er' }])
  const listed = (await node.fetch('GET', '/v2/sandboxes')).json
  assert.ok(listed.every((each) => each.volumeMounts[0].name === 'shared'))
  await assert.rejects(Volume.destroy(volume.volumeId, node.options), /409: volume "shared" is in use by sandbox/)
  await killAll(one, other)
  assert.equal(await Volume.destroy(volume.volumeId, node.options), true)
  await until(async () => (await readdir(path.join(node.home, 'volumes/trash'))).length === 0)
})

test('several in one sandbox, one within the other', async () => {
  const [outer, inner, third] = await Promise.all(['outer', 'inner', 'third'].map((name) => Volume.create(name, node.options)))
  const sandbox = await node.create('base', {
    volumeMounts: { '/data/in/side': inner, '/data': outer, '/third': third, '/same': third } })
  await sh(sandbox, 'echo o >/data/o; echo i >/data/in/side/i; echo t >/third/t; cat /same/t')
  assert.deepEqual(await readdir(path.join(folderOf(outer), 'in/side')), [])
  assert.equal(await inner.readFile('/i'), 'i\n')
  assert.equal(await outer.readFile('/o'), 'o\n')
  assert.equal(await sh(sandbox, 'cat /same/t; grep -c "^volume[0-9] " /proc/mounts'), 't\n4\n')
  await sandbox.kill()
})

test('what cannot be mounted', async () => {
  const volume = await Volume.create('picky', node.options)
  const create = (mounts, template = 'base') => node.fetch('POST', '/v2/sandboxes', { body: { templateID: template, volumeMounts: mounts } })
  const mount = (where, name = 'picky') => ({ name, path: where })
  for (const [mounts, status, message] of [
    [[mount('/v', 'nobody')], 404, 'volume "nobody" not found'],
    [[mount('v')], 400, 'a volume\'s path is not absolute: "v"'],
    [[mount('/a/../b')], 400, 'a volume\'s path has "..": "/a/../b"'],
    [[mount('/')], 400, 'a volume cannot be mounted at "/"'],
    [[mount('/proc/self')], 400, 'a volume cannot be mounted at "/proc/self": /proc is the kernel\'s'],
    [[mount('/v'), mount('/v//')], 400, 'two volumes at one path: "/v"'],
    [[1, 2, 3, 4, 5].map((i) => mount(`/v${i}`)), 400, '5 volumes, template base has devices for 4 (template build --volumes)'],
    [[{ path: '/v' }], 400, '"volumeMounts" has one without "name" or "path"'],
    // The guest says this, and no other clone is tried.
    [[mount('/etc/passwd/v')], 400, 'a volume cannot be mounted at /etc/passwd/v: Not a directory'],
    [[mount('/etc/passwd')], 400, 'a volume cannot be mounted at /etc/passwd: Not a directory'],
  ]) {
    const answer = await create(mounts)
    assert.deepEqual([answer.status, answer.json.message], [status, message])
  }
  assert.deepEqual((await node.fetch('GET', '/v2/sandboxes')).json, [])
  assert.equal(await Volume.destroy(volume.volumeId, node.options), true)
})

test('pause and resume: files and open files go on, with what others did meanwhile', async () => {
  const volume = await Volume.create('kept', node.options)
  const options = { volumeMounts: { '/data': volume } }
  const [one, other] = await Promise.all([node.create('base', options), node.create('base', options)])
  await sh(one, 'echo before >/data/file')
  const waits = await one.commands.run(
    'exec 3>>/data/log; echo open >&3; while ! test -e /data/go; do sleep 0.05; done; echo resumed >&3',
    { background: true, timeoutMs: 0 })
  await until(async () => await volume.exists('/log') && await volume.readFile('/log') === 'open\n')
  await one.pause()
  await assert.rejects(Volume.destroy(volume.volumeId, node.options), /409: volume "kept" is in use by sandbox/)
  await sh(other, 'echo while >/data/while; echo after >>/data/file; touch /data/go')
  const again = await Sandbox.connect(one.sandboxId, node.options)
  assert.equal(await sh(again, 'cat /data/file /data/while'), 'before\nafter\nwhile\n')
  await until(async () => await volume.readFile('/log') === 'open\nresumed\n')
  assert.deepEqual((await again.getInfo()).volumeMounts, [{ name: 'kept', path: '/data' }])
  await waits.disconnect().catch(() => {})
  // Gone from the host's disk, which nobody can do by the API.
  await again.pause()
  await other.kill()
  await rename(folderOf(volume), `${folderOf(volume)}-away`)
  await assert.rejects(Sandbox.connect(one.sandboxId, node.options),
    /409: volume "kept", which sandbox .* has at "\/data", is gone/)
  await rename(`${folderOf(volume)}-away`, folderOf(volume))
  assert.equal(await sh(await Sandbox.connect(one.sandboxId, node.options), 'cat /data/while'), 'while\n')
  await killAll(one)
})

test('forks and snapshots have the volumes of what they come from', async () => {
  const [volume, more] = [await Volume.create('branch', node.options), await Volume.create('more', node.options)]
  const parent = await node.create('base', { volumeMounts: { '/data': volume } })
  await sh(parent, 'echo parent >/data/parent; echo own >own')
  const snapshot = await parent.createSnapshot()
  const forks = await parent.fork({ count: 2, timeoutMs: 60_000 })
  for (const [i, fork] of forks.entries()) await sh(fork, `echo ${i} >/data/fork${i}`)
  assert.equal(await sh(parent, 'cat /data/fork0 /data/fork1'), '0\n1\n')
  assert.deepEqual((await forks[0].getInfo()).volumeMounts, [{ name: 'branch', path: '/data' }])
  await killAll(parent, ...forks)
  const same = await node.create(snapshot.snapshotId)
  assert.equal(await sh(same, 'cat own /data/parent /data/fork1'), 'own\nparent\n1\n')
  const added = await node.create(snapshot.snapshotId, { volumeMounts: { '/more': more, '/data': volume } })
  assert.equal(await sh(added, 'echo x >/more/x; cat /data/parent'), 'parent\n')
  assert.equal(await more.readFile('/x'), 'x\n')
  await assert.rejects(node.create(snapshot.snapshotId, { volumeMounts: { '/data': more } }), /400: the snapshot has another volume/)
  // Back to it in place; not to one with other volumes.
  await sh(same, 'echo changed >own; echo later >/data/later')
  const id = snapshot.snapshotId.split(':')[0]
  await node.cube('sandbox', 'rollback', same.sandboxId, id)
  assert.equal(await sh(same, 'cat own /data/later'), 'own\nlater\n')
  await assert.rejects(node.cube('sandbox', 'rollback', added.sandboxId, id),
    (error) => JSON.parse(error.stdout).error.includes('has other volumes than sandbox'))
  await killAll(same, added)
  assert.equal(await Volume.destroy(volume.volumeId, node.options), true)
  await assert.rejects(node.create(snapshot.snapshotId), /409: volume "branch", which .* is gone/)
})

test('after cubed was killed and started again', async () => {
  const volume = await Volume.create('survivor', node.options)
  const running = await node.create('base', { volumeMounts: { '/data': volume } })
  const paused = await node.create('base', { volumeMounts: { '/data': volume } })
  await sh(paused, 'echo paused >/data/paused')
  await paused.pause()
  process.kill(node.pid, 'SIGKILL')
  await node.up()
  process.env.E2B_VOLUME_API_URL = node.url
  const live = await Sandbox.connect(running.sandboxId, node.options)
  assert.equal(await sh(live, 'echo live >/data/live; cat /data/paused'), 'paused\n')
  assert.deepEqual((await live.getInfo()).volumeMounts, [{ name: 'survivor', path: '/data' }])
  await assert.rejects(Volume.destroy(volume.volumeId, node.options), /409/)
  const woken = await Sandbox.connect(paused.sandboxId, node.options)
  assert.equal(await sh(woken, 'cat /data/live'), 'live\n')
  await live.pause()
  assert.equal(await sh(await Sandbox.connect(live.sandboxId, node.options), 'cat /data/live'), 'live\n')
  await killAll(live, woken)
  assert.equal(await Volume.destroy(volume.volumeId, node.options), true)
})

test('a hostile guest gets at nothing but the volume', async () => {
  const volume = await Volume.create('hostile', node.options)
  await writeFile(path.join(node.home, 'secret'), 'secret')
  const sandbox = await node.create('base', { volumeMounts: { '/data': volume } })
  const host = folderOf(volume)
  // Links that lead out on the host lead nowhere but to the guest's own files, whoever made them.
  await sh(sandbox, 'cd /data && ln -s /etc/passwd p && ln -s ../../secret s && ln -s / root && ln -s /data/x loop && mkdir real')
  await symlink(path.join(node.home, 'secret'), path.join(host, 'planted'))
  await symlink('/', path.join(host, 'planted-root'))
  assert.equal(await sh(sandbox, 'cat /data/planted /data/s 2>&1; cat /data/p | head -n 1; cat /data/root/etc/hostname').catch((e) => e.stdout ?? e.message)
    .then((text) => text.includes('secret\n')), false)
  await assert.rejects(sandbox.commands.run(`cat /data/planted-root${node.home}/secret`))
  for (const link of ['/p', '/s', '/planted', '/root/etc/passwd', '/planted-root/etc/passwd']) {
    await assert.rejects(volume.readFile(link), /400|404|not found/i)
    await assert.rejects(volume.writeFile(`${link}/x`, 'x', { force: true }))
  }
  // Writing where a link is puts a file in its place; the guest may take it for the link for a second more.
  await volume.writeFile('/p', 'mine')
  await until(async () => await sh(sandbox, 'cat /data/p') === 'mine')
  assert.match(await readFile('/etc/passwd', 'utf8'), /^root:/)
  // Its machine holds the volume as a mount in which nothing is above it, and no other folder of the host.
  const { pid } = (await node.cube('sandbox', 'info', sandbox.sandboxId)).sandbox
  const folders = []
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    if ((await stat(`/proc/${pid}/fd/${fd}`).catch(() => undefined))?.isDirectory()) {
      folders.push([await readlink(`/proc/${pid}/fd/${fd}`), (await readdir(`/proc/${pid}/fd/${fd}/..`)).sort()])
    }
  }
  assert.ok(folders.some(([name]) => name === '/'))
  for (const [name, above] of folders) {
    assert.ok(['/', '/real'].includes(name), name)
    assert.deepEqual(above, (await readdir(host)).sort())
  }
  // Deeper than the content API walks, and many: a client's delete is not held up by it.
  await sh(sandbox, `mkdir -p /data/deep/$(printf 'd/%.0s' $(seq 80)) && mkdir /data/many && cd /data/many && seq 300 | xargs touch`)
  await volume.remove('/deep')
  await volume.remove('/many')
  assert.equal(await volume.exists('/deep'), false)
  await until(async () => (await readdir(path.join(node.home, 'volumes/trash'))).length === 0)
  await sandbox.kill()
  await rm(path.join(node.home, 'secret'))
})

test('a template without devices for volumes', async () => {
  await promisify(execFile)(process.env.CUBE_VMM, ['template', 'build', 'none', '--volumes', '0',
    '--kernel', process.env.CUBE_KERNEL, '--initrd', process.env.CUBE_INITRD, '--rootfs', process.env.CUBE_ROOTFS,
    '--memory', '512', '--vsock', path.join(node.home, 'other-vsock')], { env: node.env })
  await until(async () => (await node.cube('template', 'ls')).templates.some((each) => each.name === 'none'))
  await Volume.create('useless', node.options)
  await assert.rejects(node.create('none', { volumeMounts: { '/v': 'useless' } }), /400: template none has no devices for volumes/)
  const plain = await node.create('none')
  assert.equal(await sh(plain, 'echo in'), 'in\n')
  assert.deepEqual((await plain.getInfo()).volumeMounts, [])
  await plain.kill()
})
