#include "pool/warm_pool.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/monotonic.h"

namespace cube::pool {
namespace {

// How often a pool that may not be filled now looks again.
constexpr milliseconds kBusyPause(10);
constexpr milliseconds kFullPause(500);
constexpr milliseconds kLastFailurePause(10'000);

}  // namespace

WarmPool::WarmPool(asio::io_context& io, Capacity* capacity, uint64_t memory_mib, uint32_t cpus,
                   PoolConfig config, Hooks hooks)
    : io_(io),
      capacity_(capacity),
      memory_mib_(memory_mib),
      cpus_(cpus),
      config_(config),
      hooks_(std::move(hooks)) {}

Task<Outcome<ReadyVm>> WarmPool::Make(bool urgent) {
  auto self = shared_from_this();
  auto lease = capacity_->Take(memory_mib_, cpus_);
  if (!lease.ok()) co_return lease.refusal();
  auto made = co_await hooks_.clone(urgent);
  if (!made.ok()) co_return made.refusal();
  ReadyVm ready;
  ready.vm = std::move(*made);
  ready.lease = std::move(*lease);
  co_return std::move(ready);
}

Task<Outcome<ReadyVm>> WarmPool::Take() {
  auto self = shared_from_this();
  while (!parked_.empty()) {
    ReadyVm ready = std::move(parked_.front());
    parked_.pop_front();
    ready.vm->OnExit(nullptr);
    if (ready.vm->Alive()) {
      ++statistics_.hits;
      ready.was_parked = true;
      Refill();
      co_return std::move(ready);
    }
    ++statistics_.died;
    hooks_.discard(ready.vm);
  }
  ++statistics_.misses;
  hooks_.make_room(memory_mib_, cpus_);
  auto made = co_await Make(/*urgent=*/true);
  Refill();
  co_return std::move(made);
}

void WarmPool::Configure(PoolConfig config) {
  config_ = config;
  while (parked_.size() > config_.size) Evict();
  Refill();
}

void WarmPool::Refill() {
  while (!closed_ && parked_.size() + being_made_ < config_.size &&
         being_made_ < config_.concurrency) {
    uint64_t now = MonotonicNow();
    milliseconds pause(0);
    if (hooks_.busy()) {
      pause = kBusyPause;
    } else if (!capacity_->RoomForPool(memory_mib_, cpus_)) {
      pause = kFullPause;
    } else if (now < next_refill_) {
      pause = milliseconds((next_refill_ - now) / 1'000'000 + 1);
    }
    if (pause.count() != 0) {
      if (!std::exchange(later_, true)) Spawn(io_, RefillLater(pause));
      return;
    }
    next_refill_ = now + 1'000'000'000 / config_.refill_per_second;
    ++being_made_;
    Spawn(io_, RefillOne());
  }
}

Task<void> WarmPool::RefillLater(milliseconds pause) {
  auto self = shared_from_this();
  asio::steady_timer timer(io_);
  co_await Sleep(timer, pause);
  later_ = false;
  Refill();
}

Task<void> WarmPool::RefillOne() {
  auto self = shared_from_this();
  auto made = co_await Make(/*urgent=*/false);
  --being_made_;
  if (!made.ok()) {
    ++statistics_.failed;
    spdlog::warn("a clone for the pool: {}", made.refusal().message);
    auto pause = std::min(milliseconds(100) * (1 << std::min(failures_++, 10u)), kLastFailurePause);
    next_refill_ = MonotonicNow() + static_cast<uint64_t>(pause.count()) * 1'000'000;
    Refill();
    co_return;
  }
  failures_ = 0;
  if (closed_) {
    hooks_.discard(made->vm);
    co_return;
  }
  ++statistics_.made;
  made->vm->OnExit([weak = weak_from_this(), id = made->vm->id()] {
    if (auto pool = weak.lock()) pool->OnExit(id);
  });
  parked_.push_back(std::move(*made));
  Refill();
}

void WarmPool::OnExit(const std::string& id) {
  auto found = std::find_if(parked_.begin(), parked_.end(),
                            [&](const ReadyVm& ready) { return ready.vm->id() == id; });
  if (found == parked_.end()) return;
  ++statistics_.died;
  hooks_.discard(found->vm);
  parked_.erase(found);
  Refill();
}

bool WarmPool::Evict() {
  if (parked_.empty()) return false;
  ReadyVm ready = std::move(parked_.front());
  parked_.pop_front();
  ready.vm->OnExit(nullptr);
  ++statistics_.evicted;
  hooks_.discard(ready.vm);
  return true;
}

void WarmPool::AddPids(std::set<pid_t>* pids) const {
  for (const ReadyVm& ready : parked_) pids->insert(ready.vm->process().pid());
}

void WarmPool::Close() {
  closed_ = true;
  while (Evict()) {
  }
}

}  // namespace cube::pool
