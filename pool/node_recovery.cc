// What a daemon finds of the one before it.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "pool/node.h"

namespace cube::pool {
namespace {

constexpr milliseconds kKillLimit(10'000);

}  // namespace

// In this order: first everything is known that runs and is wanted; then all else is ended, among
// it what still writes snapshots, makes clones, or waits in a pool; only then is what was half-done
// ended, so that nobody interferes.
Task<Outcome<Done>> Node::Recover() {
  POOL_CO_ASSIGN(std::vector<SandboxRecord> records, context_->store.Sandboxes());
  std::map<std::string, std::shared_ptr<Vm>> found;
  for (const std::string& id : context_->launcher->FindIds()) {
    auto vm = Vm::Connect(context_->io, id, context_->launcher->ControlPath(id));
    if (vm.ok()) found[id] = *vm;
  }
  std::set<pid_t> wanted;
  std::vector<std::shared_ptr<Sandbox>> adopted;
  std::vector<std::string> superfluous;
  for (SandboxRecord& record : records) {
    auto sandbox = std::make_shared<Sandbox>(context_.get(), record);
    sandboxes_[record.id] = sandbox;
    auto running = found.find(record.id);
    bool is_its_own = running != found.end() && record.boot_id == context_->boot_id &&
                      running->second->process().pid() == record.pid &&
                      running->second->process().start_ticks() == record.start_ticks;
    switch (record.state) {
      case SandboxState::kRunning:
      case SandboxState::kPausing:
      case SandboxState::kSnapshotting:
        if (!is_its_own && record.state == SandboxState::kPausing) {
          (void)context_->launcher->Collect(record.id, record.pending, record.base);
        }
        if (is_its_own) {
          wanted.insert(record.pid);
          adopted.push_back(std::move(sandbox));
        } else if (record.state == SandboxState::kPausing &&
                   SnapshotShelf::IsWhole(record.pending)) {
          POOL_CO_TRY(sandbox->FoundPaused());
        } else {
          sandbox->FoundDead(record.boot_id == context_->boot_id ? "" : "the host was restarted");
        }
        break;
      case SandboxState::kPaused:
      case SandboxState::kResuming:
        // Whoever resumed it was not told that it runs.
        if (SnapshotShelf::IsWhole(record.snapshot)) {
          POOL_CO_TRY(sandbox->FoundPaused());
        } else {
          sandbox->FoundDead("what it was to be resumed from is gone: " + record.snapshot);
        }
        break;
      case SandboxState::kCreating:
      case SandboxState::kKilling:
        superfluous.push_back(record.id);
        break;
      case SandboxState::kDead:
        break;
    }
  }
  size_t ended = 0;
  for (const ProcessHandle& process : context_->launcher->FindAll()) {
    if (wanted.contains(process.pid())) continue;
    process.Kill();
    co_await AwaitExit(context_->io, process.fd(), kKillLimit);
    ++ended;
  }
  for (const std::string& id : context_->launcher->FindIds()) {
    if (!sandboxes_.contains(id)) context_->launcher->Forget(id);
  }
  if (context_->network != nullptr) {
    auto networks = context_->network->fabric().sandboxes();
    for (const auto& [id, slot] : networks) {
      auto known = sandboxes_.find(id);
      bool has_machine = known != sandboxes_.end() && std::ranges::count(adopted, known->second);
      if (!has_machine) context_->ReleaseNetwork(id);
    }
  }
  for (const std::string& id : superfluous) {
    auto sandbox = sandboxes_[id];
    (void)co_await sandbox->Kill();
  }
  for (const std::string& name : context_->launcher->FindZygotes()) {
    context_->launcher->ForgetZygote(name);
  }
  for (const auto& sandbox : adopted) {
    auto running = sandbox->Adopt(found[sandbox->id()]);
    if (!running.ok()) co_return running.refusal();
    co_await sandbox->Recover();
  }
  if (!records.empty() || ended != 0) {
    spdlog::info("recovered: {} sandboxes, {} of them running; {} other processes ended",
                 records.size(), adopted.size(), ended);
  }
  Tidy();
  co_return Done();
}

// A zygote that is killed while it makes clones leaves some that nobody was told of. What nobody
// knows at three looks, of which the first is longer ago than any request lasts, is ended.
void Node::EndUnknown() {
  constexpr uint32_t kLooks = 3;
  std::set<pid_t> known;
  for (const auto& [id, sandbox] : sandboxes_) {
    if (sandbox->vm() != nullptr) known.insert(sandbox->vm()->process().pid());
  }
  for (const auto& [name, state] : templates_) {
    state.zygote->AddPids(&known);
    state.pool->AddPids(&known);
  }
  std::map<std::pair<pid_t, uint64_t>, uint32_t> unknown;
  for (const ProcessHandle& process : context_->launcher->FindAll()) {
    if (known.contains(process.pid())) continue;
    auto key = std::pair(process.pid(), process.start_ticks());
    uint32_t looks = unknown_[key] + 1;
    if (looks >= kLooks) {
      spdlog::warn("process {} is nobody's: ended", process.pid());
      process.Kill();
    } else {
      unknown[key] = looks;
    }
  }
  unknown_ = std::move(unknown);
}

}  // namespace cube::pool
