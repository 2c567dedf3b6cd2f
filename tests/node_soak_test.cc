// A node under load whose daemon, zygotes and machines are killed at random: what was acknowledged
// is found again, or is dead with a reason, and in the end nothing is left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "tests/await.h"
#include "tests/node_daemon.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr int kClients = 3;
// Something is killed once so many requests were carried out.
constexpr uint64_t kBetweenKills = 12;

// Sandboxes that a client was told of, until it asks for their end.
class Acknowledged {
 public:
  void Add(const std::string& id) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (!id.empty()) ids_.insert(id);
  }
  // Nobody else's from here on; "" if there is none.
  std::string TakeAny(std::mt19937* random) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (ids_.empty()) return "";
    auto one = std::next(ids_.begin(), static_cast<ptrdiff_t>((*random)() % ids_.size()));
    std::string id = *one;
    ids_.erase(one);
    return id;
  }
  std::set<std::string> All() {
    std::lock_guard<std::mutex> guard(mutex_);
    return ids_;
  }

 private:
  std::mutex mutex_;
  std::set<std::string> ids_;
};

class Soak {
 public:
  Soak() : node_("[pool]\nsize = 3\n[sandbox]\nmax_chain = 4\n"), random_(std::random_device()()) {}

  void Run(std::chrono::seconds time) {
    node_.Start();
    std::vector<std::thread> clients;
    for (int i = 0; i < kClients; ++i) clients.emplace_back([this] { Work(); });
    auto end = std::chrono::steady_clock::now() + time;
    uint64_t kills = 0;
    while (std::chrono::steady_clock::now() < end) {
      {
        std::unique_lock<std::mutex> guard(mutex_);
        const uint64_t due = done_ + kBetweenKills;
        answered_.wait_until(guard, end, [&] { return done_ >= due; });
      }
      KillSomething();
      ++kills;
    }
    stop_ = true;
    for (std::thread& client : clients) client.join();
    printf("%llu requests, %llu of them done, %llu creates; %llu kills, %llu of them of the daemon; "
           "%zu sandboxes left\n",
           static_cast<unsigned long long>(answers_), static_cast<unsigned long long>(done_),
           static_cast<unsigned long long>(creates_), static_cast<unsigned long long>(kills),
           static_cast<unsigned long long>(crashes_), acknowledged_.All().size());
    CheckAll();
    EndAll();
  }

 private:
  void Work() {
    std::mt19937 random(std::random_device{}());
    while (!stop_) {
      std::string id = acknowledged_.TakeAny(&random);
      uint32_t what = random() % 8;
      if (id.empty() || what == 0) {
        if (!id.empty()) acknowledged_.Add(id);
        if (acknowledged_.All().size() < 20) acknowledged_.Add(CreateQuietly());
      } else if (what == 1) {
        // Whatever comes of it, it was asked for.
        Ask({{"op", "sandbox.kill"}, {"id", id}});
        ended_.Add(id);
      } else {
        static constexpr const char* kOps[] = {"pause", "connect", "snapshot",
                                               "fork",  "info",    "resume"};
        std::string op = kOps[what - 2];
        json::object answer = Ask({{"op", "sandbox." + op}, {"id", id}});
        acknowledged_.Add(id);
        if (op == "fork" && IsOk(answer)) {
          for (const json::value& clone : answer.at("sandboxes").as_array()) {
            acknowledged_.Add(Text(clone.as_object(), "id"));
          }
        }
        if (op == "snapshot" && IsOk(answer)) {
          Ask({{"op", "snapshot.delete"}, {"id", Text(Inner(answer, "snapshot"), "id")}});
        }
      }
    }
  }

  // Nothing is asked of a daemon that is not there; what it is asked as it ends may be lost.
  json::object Ask(const json::object& request) {
    {
      std::unique_lock<std::mutex> guard(mutex_);
      began_.wait(guard, [&] { return up_; });
    }
    json::object answer = node_.Ask(request);
    std::lock_guard<std::mutex> guard(mutex_);
    ++answers_;
    done_ += IsOk(answer);
    answered_.notify_one();
    return answer;
  }
  void SetUp(bool up) {
    std::lock_guard<std::mutex> guard(mutex_);
    up_ = up;
    began_.notify_all();
  }

  std::string CreateQuietly() {
    json::object answer = Ask({{"op", "sandbox.create"}, {"template", "t"}});
    creates_ += IsOk(answer);
    return Text(Inner(answer, "sandbox"), "id");
  }

  void KillSomething() {
    if (random_() % 4 == 0) {
      ++crashes_;
      SetUp(false);
      node_.Crash();
      if (random_() % 2 == 0) KillOneProcess();
      node_.Start();
      SetUp(true);
      CheckAll();
    } else {
      KillOneProcess();
    }
  }

  void KillOneProcess() {
    std::vector<pid_t> pids = node_.Machines();
    if (!pids.empty()) kill(pids[random_() % pids.size()], SIGKILL);
  }

  // Asked for while the clients go on: one that has been taken meanwhile may be gone.
  void CheckAll() {
    for (const std::string& id : acknowledged_.All()) {
      json::object answer = node_.Ask("sandbox.info", id);
      if (!IsOk(answer) && (!acknowledged_.All().contains(id) || ended_.All().contains(id)))
        continue;
      ASSERT_TRUE(IsOk(answer)) << id << " " << json::serialize(answer);
      const json::object& sandbox = Inner(answer, "sandbox");
      if (Text(sandbox, "state") == "dead") {
        EXPECT_NE(Text(sandbox, "reason"), "");
      }
    }
  }

  void EndAll() {
    json::object all = node_.Ask("sandbox.list");
    for (const json::value& one : all.at("sandboxes").as_array()) {
      EXPECT_TRUE(IsOk(node_.Ask("sandbox.kill", Text(one.as_object(), "id"))));
    }
    // Those whose client heard of them, and not any more that they were deleted.
    json::object snapshots = node_.Ask("snapshot.list");
    for (const json::value& one : snapshots.at("snapshots").as_array()) {
      EXPECT_TRUE(IsOk(node_.Ask("snapshot.delete", Text(one.as_object(), "id"))));
    }
    AwaitChange(node_.home() + "/snapshots",
                [&] { return fs::is_empty(node_.home() + "/snapshots"); });
    // A zygote that was killed may have left clones that nobody knew: the next daemon finds them.
    node_.Crash();
    node_.Start();
    node_.Stop();
    node_.AwaitMachines(0);
    // Users are given back with the boxes that they own.
    EXPECT_TRUE(fs::is_empty(node_.home() + "/node/boxes"));
    EXPECT_THAT(node_.Cgroups(), ::testing::IsEmpty());
    EXPECT_EQ(CountMounts(), 0u);
  }

  // Of this mount namespace, where there is nothing of a jail's.
  size_t CountMounts() const {
    std::ifstream mounts("/proc/self/mounts");
    size_t count = 0;
    for (std::string line; std::getline(mounts, line);) {
      if (line.find(node_.home()) != std::string::npos) ++count;
    }
    return count;
  }

  NodeDaemon node_;
  std::mt19937 random_;
  Acknowledged acknowledged_, ended_;
  std::mutex mutex_;
  std::condition_variable answered_, began_;
  // Under mutex_.
  uint64_t answers_ = 0, done_ = 0;
  bool up_ = true;
  std::atomic<uint64_t> creates_ = 0;
  uint64_t crashes_ = 0;
  std::atomic<bool> stop_ = false;
};

TEST(NodeSoakTest, KilledAtRandomUnderLoad) {
  Soak().Run(std::chrono::seconds(std::stoi(Env("CUBE_SOAK_SECONDS"))));
}

}  // namespace
}  // namespace cube::testing
