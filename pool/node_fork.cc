// Forks where machines cannot fork themselves: a snapshot, from which each clone goes on.
#include <algorithm>

#include "pool/node.h"

namespace cube::pool {
namespace {

using Clones = std::vector<std::shared_ptr<Sandbox>>;

// Clones that are being made at once, and who waits for the last.
struct Litter {
  explicit Litter(asio::io_context& io) : done(io) {
    done.expires_at(asio::steady_timer::time_point::max());
  }
  size_t left = 0;
  Clones clones;
  Outcome<Done> all = Done();
  asio::steady_timer done;
};

}  // namespace

Task<Outcome<Clones>> Node::ForkBySnapshot(std::shared_ptr<Sandbox> parent,
                                           std::vector<std::string> tokens) {
  POOL_CO_ASSIGN(std::string path, context_->shelf.NewPath());
  // Until the clones are there, which need it as their base, it is nobody's.
  auto held = held_.insert(path);
  auto snapshot = co_await parent->SnapshotForFork(path);
  auto litter = std::make_shared<Litter>(context_->io);
  if (!snapshot.ok()) {
    litter->all = snapshot.refusal();
  } else {
    const SandboxRecord& record = parent->record();
    CreateRequest request;
    request.metadata = record.metadata;
    request.environment = record.environment;
    request.timeout_seconds = record.timeout_seconds;
    request.on_timeout = record.on_timeout;
    request.limits = record.limits;
    request.network = record.network;
    request.volumes = record.volumes;
    request.annotation = record.annotation;
    litter->left = tokens.size();
    for (std::string& token : tokens) {
      request.token = std::move(token);
      auto make = [](Node* node, SnapshotRecord from, CreateRequest what,
                     std::shared_ptr<Litter> into) -> Task<void> {
        auto made = co_await node->CreateFrom(std::move(from), std::move(what));
        if (made.ok()) {
          into->clones.push_back(std::move(made->sandbox));
        } else {
          into->all = made.refusal();
        }
        if (--into->left == 0) into->done.cancel();
      };
      Spawn(context_->io, make(this, *snapshot, request, litter));
    }
    if (litter->left != 0) co_await litter->done.async_wait(kAsTuple);
  }
  held_.erase(held);
  if (litter->all.ok()) co_return litter->clones;
  for (auto& clone : litter->clones) (void)co_await clone->Kill();
  Tidy();
  co_return litter->all.refusal();
}

}  // namespace cube::pool
