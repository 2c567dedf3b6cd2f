// cube-bench: what a node does for its clients, measured from outside, by its control socket.
//
//   cube-bench create [--socket PATH] [--template T] [--rounds N] [--concurrency N...]
//                     [--rate N...] [--burst N...] [--pause N]
//   cube-bench claims   everything, beside peers, with verdicts (bench/claims)
//   cube-bench compare  two reports of it
//
// Closed loop: so many clients, each creating one sandbox after another, which is killed outside
// the time that counts. Open loop: creates at random moments (Poisson), so many a second, timed
// from when each was due. Burst: so many at once, against a pool that is full. Pause: so many
// pauses and resumes of one sandbox. Distributions, in ms.
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bench/claims/claims_command.h"
#include "pool/client_connection.h"

namespace cube::pool {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

struct Words {
  std::string socket = "/var/lib/cube/cubed.sock";
  std::string template_name = "t";
  uint64_t rounds = 100;
  std::vector<uint64_t> concurrency, rate, burst;
  uint64_t pause = 0;
};

double Ms(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

[[noreturn]] void Fail(const std::string& what) {
  fprintf(stderr, "cube-bench: %s\n", what.c_str());
  exit(1);
}

class Client {
 public:
  explicit Client(const Words& words) : words_(words), connection_(Open(words.socket)) {}

  json::object Ask(const json::object& request) {
    auto answer = connection_.Ask(json::serialize(request));
    if (!answer.ok()) Fail(answer.error().message());
    auto object = Understand(*answer);
    if (!object.ok()) Fail(object.error().message());
    return std::move(*object);
  }

  std::string Create(bool* warm) {
    json::object answer = Ask({{"op", "sandbox.create"}, {"template", words_.template_name}});
    *warm = answer.at("warm").as_bool();
    return std::string(answer.at("sandbox").as_object().at("id").as_string());
  }
  void Kill(const std::string& id) { Ask({{"op", "sandbox.kill"}, {"id", id}}); }

 private:
  static ClientConnection Open(const std::string& path) {
    auto connection = ClientConnection::Open(path);
    if (!connection.ok()) Fail(connection.error().message());
    return std::move(*connection);
  }

  const Words& words_;
  ClientConnection connection_;
};

// Times of many threads.
class Times {
 public:
  void Add(double ms, bool warm) {
    std::lock_guard<std::mutex> guard(mutex_);
    all_.push_back(ms);
    warm_ += warm;
  }
  void Print(const std::string& name) {
    std::sort(all_.begin(), all_.end());
    auto at = [&](double share) {
      size_t place = static_cast<size_t>(share * static_cast<double>(all_.size()));
      return all_[std::min(place, all_.size() - 1)];
    };
    printf("| %s | %zu | %zu | %.2f | %.2f | %.2f | %.2f | %.2f |\n", name.c_str(), all_.size(),
           warm_, at(0.5), at(0.9), at(0.99), all_.front(), all_.back());
    fflush(stdout);
  }
  double Most() const { return *std::max_element(all_.begin(), all_.end()); }

 private:
  std::mutex mutex_;
  std::vector<double> all_;
  size_t warm_ = 0;
};

// Until the template's pool is full, and nothing else goes on.
void AwaitPool(const Words& words) {
  Client client(words);
  for (;;) {
    json::object answer = client.Ask({{"op", "pool.status"}});
    for (const json::value& each : answer.at("pools").as_array()) {
      const json::object& pool = each.as_object();
      if (pool.at("template").as_string() != words.template_name) continue;
      if (pool.at("parked").as_int64() >= pool.at("target").as_int64()) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Each client pauses after a kill until the pool is full again, if it is the only one.
void Closed(const Words& words, uint64_t clients) {
  AwaitPool(words);
  Times times;
  std::atomic<uint64_t> left = words.rounds;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < clients; ++i) {
    threads.emplace_back([&] {
      Client client(words);
      while (left.fetch_sub(1) - 1 < words.rounds) {
        bool warm = false;
        auto start = Clock::now();
        std::string id = client.Create(&warm);
        times.Add(Ms(Clock::now() - start), warm);
        client.Kill(id);
        if (clients == 1) AwaitPool(words);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  times.Print("closed, " + std::to_string(clients) + " at a time");
}

void Open(const Words& words, uint64_t rate) {
  AwaitPool(words);
  Times times;
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(static_cast<double>(rate));
  std::vector<std::thread> threads;
  auto due = Clock::now();
  for (uint64_t i = 0; i < words.rounds; ++i) {
    due += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(gap(random)));
    threads.emplace_back([&, due] {
      Client client(words);
      std::this_thread::sleep_until(due);
      bool warm = false;
      std::string id = client.Create(&warm);
      times.Add(Ms(Clock::now() - due), warm);
      client.Kill(id);
    });
  }
  for (std::thread& thread : threads) thread.join();
  times.Print("open, " + std::to_string(rate) + " a second");
}

void Burst(const Words& words, uint64_t count) {
  AwaitPool(words);
  Times times;
  std::vector<std::thread> threads;
  std::atomic<bool> go = false;
  std::atomic<uint64_t> there = 0;
  std::vector<std::string> ids(count);
  Clock::time_point start;
  for (uint64_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      Client client(words);
      ++there;
      go.wait(false);
      bool warm = false;
      ids[i] = client.Create(&warm);
      times.Add(Ms(Clock::now() - start), warm);
    });
  }
  while (there != count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  start = Clock::now();
  go = true;
  go.notify_all();
  for (std::thread& thread : threads) thread.join();
  printf("burst of %llu: all ready after %.1f ms\n", static_cast<unsigned long long>(count),
         times.Most());
  times.Print("burst of " + std::to_string(count) + ", from the first request");
  Client client(words);
  for (const std::string& id : ids) client.Kill(id);
}

void PauseAndResume(const Words& words) {
  Client client(words);
  bool warm = false;
  std::string id = client.Create(&warm);
  Times pauses, resumes;
  for (uint64_t i = 0; i < words.pause; ++i) {
    auto start = Clock::now();
    client.Ask({{"op", "sandbox.pause"}, {"id", id}});
    auto paused = Clock::now();
    client.Ask({{"op", "sandbox.resume"}, {"id", id}});
    pauses.Add(Ms(paused - start), false);
    resumes.Add(Ms(Clock::now() - paused), false);
  }
  client.Kill(id);
  pauses.Print("pause of an idle one");
  resumes.Print("resume");
}

void PrintMachine() {
  utsname name;
  uname(&name);
  std::string line, processor;
  for (std::ifstream in("/proc/cpuinfo"); std::getline(in, line);) {
    if (line.starts_with("model name")) processor = line.substr(line.find(':') + 2);
  }
  double load = 0;
  getloadavg(&load, 1);
  printf("%s, %u processors, Linux %s, load %.1f\n", processor.c_str(),
         std::thread::hardware_concurrency(), name.release, load);
}

}  // namespace
}  // namespace cube::pool

int main(int argc, char** argv) {
  using namespace cube::pool;
  Words words;
  CLI::App app{"cube-bench: what a node does for its clients", "cube-bench"};
  app.require_subcommand(1);
  CLI::App* create = app.add_subcommand("create", "creates, from request to READY");
  create->add_option("--socket", words.socket, "cubed's control socket")->capture_default_str();
  create->add_option("--template", words.template_name, "what to create")->capture_default_str();
  create->add_option("--rounds", words.rounds, "creates of each kind")->capture_default_str();
  create->add_option("--concurrency", words.concurrency, "closed loop: clients");
  create->add_option("--rate", words.rate, "open loop: creates a second");
  create->add_option("--burst", words.burst, "so many at once");
  create->add_option("--pause", words.pause, "pauses and resumes of one sandbox");
  int status = 0;
  cube::bench::AddClaimsCommands(&app, &status);
  CLI11_PARSE(app, argc, argv);
  if (!create->parsed()) return status;
  PrintMachine();
  printf(
      "\n| | creates | warm | median | p90 | p99 | least | most "
      "|\n|---|---|---|---|---|---|---|---|\n");
  for (uint64_t clients : words.concurrency) Closed(words, clients);
  for (uint64_t rate : words.rate) Open(words, rate);
  for (uint64_t count : words.burst) Burst(words, count);
  if (words.pause != 0) PauseAndResume(words);
  return 0;
}
