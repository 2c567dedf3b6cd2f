#include "pool/warm_pool.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

namespace cube::pool {
namespace {

// A process that does nothing, in place of a machine.
std::shared_ptr<Vm> IdleProcess(asio::io_context& io, const std::string& id) {
  pid_t pid = fork();
  if (pid == 0) {
    for (;;) pause();
  }
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  close(ends[1]);
  return Vm::Make(io, id, ProcessHandle::Open(pid).value(), UniqueFd(ends[0]));
}

class WarmPoolTest : public ::testing::Test {
 protected:
  WarmPoolTest() : capacity_([this] { return host_; }) {
    Config config;
    config.memory_mib = 100'000;
    config.reserve_mib = 64;
    capacity_.Configure(config);
  }
  ~WarmPoolTest() override {
    pool_->Close();
    pool_.reset();
    io_.restart();
    io_.run_for(milliseconds(50));
    for (const auto& vm : all_) vm->process().Kill();
    while (waitpid(-1, nullptr, 0) > 0) {
    }
  }

  void Make(PoolConfig config) {
    WarmPool::Hooks hooks;
    hooks.clone = [this](bool) -> Task<Outcome<std::shared_ptr<Vm>>> { return Clone(); };
    hooks.make_room = [](uint64_t, uint32_t) {};
    hooks.busy = [this] { return busy_; };
    hooks.discard = [this](const std::shared_ptr<Vm>& vm) { discarded_.insert(vm->id()); };
    pool_ = std::make_shared<WarmPool>(io_, &capacity_, 128, 1, config, std::move(hooks));
    pool_->Refill();
  }

  Task<Outcome<std::shared_ptr<Vm>>> Clone() {
    most_ = std::max(most_, ++making_);
    asio::steady_timer timer(io_);
    co_await Sleep(timer, milliseconds(5));
    --making_;
    if (failing_) co_return Refuse(Fault::kInternal, "no clones today");
    auto vm = IdleProcess(io_, "vm" + std::to_string(all_.size()));
    all_.push_back(vm);
    co_return vm;
  }

  // Lets things happen until `done`.
  void Until(const std::function<bool()>& done) {
    io_.restart();
    while (!done()) io_.run_one();
  }

  Outcome<ReadyVm> Take() {
    std::optional<Outcome<ReadyVm>> taken;
    Spawn(io_, TakeTo(&taken));
    Until([&] { return taken.has_value(); });
    return std::move(*taken);
  }
  Task<void> TakeTo(std::optional<Outcome<ReadyVm>>* taken) {
    Outcome<ReadyVm> ready = co_await pool_->Take();
    taken->emplace(std::move(ready));
  }

  asio::io_context io_;
  HostResources host_ = {200'000, 200'000, 64, 0};
  Capacity capacity_;
  std::shared_ptr<WarmPool> pool_;
  std::vector<std::shared_ptr<Vm>> all_;
  std::set<std::string> discarded_;
  int making_ = 0, most_ = 0;
  bool busy_ = false, failing_ = false;
};

TEST_F(WarmPoolTest, FillsUpSoManyAtOnceAndAgainAfterATake) {
  Make({10, 3, 10'000});
  Until([&] { return pool_->parked() == 10; });
  EXPECT_EQ(most_, 3);
  EXPECT_EQ(capacity_.counters().machines, 10u);
  auto first = Take();
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(first->was_parked);
  Until([&] { return pool_->parked() == 10; });
  EXPECT_EQ(capacity_.counters().machines, 11u);
  EXPECT_EQ(pool_->statistics().hits, 1u);
  EXPECT_EQ(pool_->statistics().made, 11u);
  pool_->Configure({2, 1, 10'000});
  EXPECT_EQ(pool_->parked(), 2u);
  EXPECT_EQ(discarded_.size(), 8u);
}

TEST_F(WarmPoolTest, WhatHasDiedIsNotHandedOut) {
  Make({3, 1, 10'000});
  Until([&] { return pool_->parked() == 3; });
  busy_ = true;  // nothing is made meanwhile
  kill(all_[0]->process().pid(), SIGKILL);
  kill(all_[1]->process().pid(), SIGKILL);
  for (const auto& vm : {all_[0], all_[1]}) {
    pollfd ended = {vm->process().fd(), POLLIN, 0};
    ASSERT_EQ(poll(&ended, 1, -1), 1);
  }
  auto taken = Take();
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->vm->id(), "vm2");
  EXPECT_EQ(pool_->statistics().died, 2u);
  EXPECT_EQ(discarded_, (std::set<std::string>{"vm0", "vm1"}));
  // Nothing is left: one is made on the spot.
  taken = Take();
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE(taken->was_parked);
  EXPECT_EQ(pool_->statistics().misses, 1u);
}

TEST_F(WarmPoolTest, WhatDiesInThePoolIsReplaced) {
  Make({2, 2, 10'000});
  Until([&] { return pool_->parked() == 2; });
  kill(all_[0]->process().pid(), SIGKILL);
  Until([&] { return pool_->statistics().made == 3; });
  EXPECT_EQ(pool_->parked(), 2u);
  EXPECT_EQ(discarded_.count("vm0"), 1u);
}

TEST_F(WarmPoolTest, CreatesAndPressureComeBeforeRefills) {
  busy_ = true;
  Make({2, 2, 10'000});
  io_.run_for(milliseconds(30));
  EXPECT_TRUE(all_.empty());
  host_.memory_pressure = 50;
  busy_ = false;
  io_.restart();
  io_.run_for(milliseconds(30));
  EXPECT_TRUE(all_.empty());
  host_.memory_pressure = 0;
  Until([&] { return pool_->parked() == 2; });
}

TEST_F(WarmPoolTest, AFailureIsToldAndTriedAgain) {
  failing_ = true;
  Make({1, 1, 10'000});
  auto taken = Take();
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.refusal().message, "no clones today");
  Until([&] { return pool_->statistics().failed >= 1; });
  failing_ = false;
  Until([&] { return pool_->parked() == 1; });
  EXPECT_EQ(capacity_.counters().machines, 1u);
}

}  // namespace
}  // namespace cube::pool
