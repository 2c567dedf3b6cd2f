// The SDK's git, with a remote that is a folder in the sandbox.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { e2b, Node } from './node.mjs'

const remote = '/tmp/remote.git', repo = '/tmp/repo', copy = '/tmp/copy'
let node, sandbox, git
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 1\n' })
  sandbox = await node.create('base', { timeoutMs: 3600_000 })
  git = sandbox.git
})
after(() => node.stop())

const names = (status) => status.fileStatus.map((each) => `${each.name} ${each.status}`).sort()

test('a repository, its settings, and what changes in it', async () => {
  await git.init(remote, { bare: true, initialBranch: 'main' })
  await git.init(repo, { initialBranch: 'main' })
  await git.configureUser('Me', 'me@example.test')
  assert.equal(await git.getConfig('user.email'), 'me@example.test')
  await git.setConfig('pull.rebase', 'false', { scope: 'local', path: repo })
  assert.equal(await git.getConfig('pull.rebase', { scope: 'local', path: repo }), 'false')
  assert.equal(await git.getConfig('no.such'), undefined)
  await sandbox.files.write(`${repo}/file`, 'one\n')
  await sandbox.files.write(`${repo}/other ö`, 'x\n')
  const before = await git.status(repo)
  assert.deepEqual([before.currentBranch, before.isClean, before.hasUntracked, before.untrackedCount], ['main', false, true, 2])
  await git.add(repo, { files: ['file'] })
  assert.deepEqual((await git.status(repo)).stagedCount, 1)
  await git.commit(repo, 'first')
  await git.add(repo)
  await git.commit(repo, 'second "quoted" $(no)', { authorName: 'An Other', authorEmail: 'other@example.test' })
  const log = await sandbox.commands.run(`git -C ${repo} log --format='%an <%ae> %s'`)
  assert.equal(log.stdout, 'An Other <other@example.test> second "quoted" $(no)\nMe <me@example.test> first\n')
  assert.equal((await git.status(repo)).isClean, true)
})

test('restore and reset', async () => {
  await sandbox.files.write(`${repo}/file`, 'changed\n')
  assert.deepEqual(names(await git.status(repo)), ['file modified'])
  await git.add(repo, { all: true })
  await git.restore(repo, { paths: ['file'], staged: true })
  assert.deepEqual([(await git.status(repo)).stagedCount, await sandbox.files.read(`${repo}/file`)], [0, 'changed\n'])
  await git.restore(repo, { paths: ['file'] })
  assert.equal(await sandbox.files.read(`${repo}/file`), 'one\n')
  await sandbox.files.write(`${repo}/file`, 'lost\n')
  await git.reset(repo, { mode: 'hard', target: 'HEAD' })
  assert.equal(await sandbox.files.read(`${repo}/file`), 'one\n')
})

test('branches', async () => {
  await git.createBranch(repo, 'other')
  assert.deepEqual(await git.branches(repo), { branches: ['main', 'other'], currentBranch: 'other' })
  await git.checkoutBranch(repo, 'main')
  assert.equal((await git.branches(repo)).currentBranch, 'main')
  await git.deleteBranch(repo, 'other')
  assert.deepEqual((await git.branches(repo)).branches, ['main'])
  await assert.rejects(git.checkoutBranch(repo, 'nowhere'), e2b.CommandExitError)
})

test('a remote: push, clone, pull', async () => {
  await assert.rejects(git.pull(repo), e2b.GitUpstreamError)
  assert.equal(await git.remoteGet(repo, 'origin'), undefined)
  await git.remoteAdd(repo, 'origin', remote)
  assert.equal(await git.remoteGet(repo, 'origin'), remote)
  await git.push(repo, { remote: 'origin', branch: 'main' })
  assert.equal((await git.status(repo)).upstream, 'origin/main')
  await git.clone(remote, { path: copy, branch: 'main' })
  assert.equal(await sandbox.files.read(`${copy}/other ö`), 'x\n')
  await sandbox.files.write(`${copy}/new`, 'from the copy\n')
  await git.add(copy)
  await git.commit(copy, 'third')
  assert.equal((await git.status(copy)).ahead, 1)
  await git.push(copy)
  await git.pull(repo)
  assert.equal(await sandbox.files.read(`${repo}/new`), 'from the copy\n')
  await assert.rejects(git.clone('/tmp/nowhere', { path: '/tmp/none' }), e2b.CommandExitError)
})

test('credentials that are kept', async () => {
  await git.dangerouslyAuthenticate({ username: 'me', password: 'a secret', host: 'git.example.test' })
  assert.equal(await sandbox.files.read('.git-credentials'), 'https://me:a%20secret@git.example.test\n')
})
