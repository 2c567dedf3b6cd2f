#include "api/template_builder.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <set>

#include "pool/spawn.h"
#include "pool/vm.h"

namespace cube::api {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
namespace json = boost::json;
using pool::Done;
using pool::Fault;
using pool::Outcome;
using pool::Refuse;
using pool::Task;

constexpr size_t kMaxLine = 1 << 20;
constexpr pool::milliseconds kExitLimit(60'000);
constexpr size_t kMaxMessage = 4096;
constexpr size_t kMaxBuilds = 64;  // whose logs are kept

std::string TextOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

using Words = std::vector<std::string>;

// tar keeps what it makes beneath the folder, whatever names say.
Words UnpackWords(const std::string& archive, const std::string& folder) {
  return {"/bin/sh", "-c", "tar -xf \"$0\" -C \"$1\" --no-same-owner && echo unpacked", archive,
          folder};
}

Words BuildWords(const std::string& vmm, const std::string& name, const std::string& work,
                 const BuildRecord& build) {
  Words words = {vmm, "template", "build", name, "--steps", work + "/steps", "--json"};
  for (const auto& [option, value] : std::vector<std::pair<std::string, std::string>>{
           {"--context", work + "/context"},
           {"--memory", std::to_string(build.memory_mib)},
           {"--cpus", std::to_string(build.cpus)},
           {"--vsock", work + "/vsock"}}) {
    words.push_back(option);
    words.push_back(value);
  }
  return words;
}

Words HomeVariable(const std::string& home) { return Words(1, "CUBE_HOME=" + home); }

// The lines of a child's output, until it ends.
Task<Outcome<Done>> ReadLines(asio::io_context& io, std::vector<std::string> words,
                              std::vector<std::string> environment,
                              std::function<void(const std::string&)> take) {
  POOL_CO_ASSIGN(pool::Spawned child, pool::SpawnProcess(words, environment));
  auto output = std::make_shared<asio::posix::stream_descriptor>(io, child.output.Release());
  std::string received;
  for (;;) {
    auto buffer = asio::dynamic_buffer(received, kMaxLine);
    auto [failed, size] = co_await asio::async_read_until(*output, buffer, '\n', pool::kAsTuple);
    if (failed) break;
    take(received.substr(0, size - 1));
    received.erase(0, size);
  }
  if (!received.empty()) take(received);
  co_await pool::AwaitExit(io, child.process.fd(), kExitLimit);
  co_return Done();
}

}  // namespace

TemplateBuilder::TemplateBuilder(pool::Node* node, TemplateCatalog* catalog, std::string folder)
    : node_(node),
      catalog_(catalog),
      folder_(std::move(folder)),
      one_at_a_time_(node->context().io) {}

Status TemplateBuilder::Open() {
  std::error_code failed;
  fs::remove_all(folder_ + "/work", failed);
  fs::create_directories(folder_ + "/work", failed);
  if (!failed) fs::create_directories(folder_ + "/files", failed);
  if (!failed) fs::permissions(folder_, fs::perms::owner_all, failed);
  if (failed) return Errorf("%s: %s", folder_.c_str(), failed.message().c_str());
  for (const std::string& name : catalog_->Names()) {
    for (BuildRecord build : catalog_->BuildsOf(name)) {
      if (build.status != "building") continue;
      build.status = "error";
      build.reason = "cubed was started again while this was being built";
      build.finished_ms = pool::WallClockMs();
      CUBE_TRY(catalog_->Put(build));
    }
  }
  return OkStatus();
}

bool TemplateBuilder::HasArchive(const std::string& hash) const {
  return access(ArchivePath(hash).c_str(), R_OK) == 0;
}

const std::vector<BuildLogEntry>& TemplateBuilder::LogOf(const std::string& build) const {
  static const Log kNothing;
  auto found = logs_.find(build);
  return found == logs_.end() ? kNothing : found->second;
}

void TemplateBuilder::Add(const std::string& build, const char* level, std::string message,
                          std::string step) {
  Log& log = logs_[build];
  if (log.size() >= kMaxEntries) return;
  if (message.size() > kMaxMessage) message.resize(kMaxMessage);
  log.push_back({pool::WallClockMs(), level, std::move(message), std::move(step)});
}

void TemplateBuilder::Start(BuildRecord build, BuildPlan plan, std::vector<std::string> tags) {
  while (logs_.size() > kMaxBuilds) logs_.erase(logs_.begin());
  pool::Spawn(node_->context().io, Run(std::move(build), std::move(plan), std::move(tags)));
}

Task<void> TemplateBuilder::Run(BuildRecord build, BuildPlan plan, std::vector<std::string> tags) {
  pool::AsyncLock::Guard guard = co_await one_at_a_time_.Acquire();
  const std::string work = folder_ + "/work/" + build.id;
  std::error_code failed;
  fs::create_directories(work + "/context", failed);
  Outcome<Done> done = Done();
  auto steps = WriteSteps(plan);
  if (!steps.ok()) {
    done = steps.refusal();
  } else {
    done = co_await Prepare(plan, work + "/context");
    if (done.ok()) {
      std::ofstream(work + "/steps") << steps->text;
      done = co_await Build(&build, *steps, work);
    }
  }
  fs::remove_all(work, failed);
  Finish(std::move(build), done, tags);
}

// The archives of what is copied, each in a folder of its own.
Task<Outcome<Done>> TemplateBuilder::Prepare(const BuildPlan& plan, std::string context) {
  std::set<std::string> hashes;
  for (const TemplateStep& step : plan.steps) {
    if (step.type == "COPY") hashes.insert(step.files_hash);
  }
  for (const std::string& hash : hashes) {
    if (!HasArchive(hash)) {
      co_return Refuse(Fault::kInvalid, "the files with the hash %.64s were not uploaded",
                       hash.c_str());
    }
    const std::string to = context + "/" + hash;
    std::error_code failed;
    fs::create_directories(to, failed);
    std::string last;
    Words words = UnpackWords(ArchivePath(hash), to);
    auto take = [&last](const std::string& line) { last = line; };
    POOL_CO_TRY(co_await ReadLines(node_->context().io, words, Words(), take));
    if (last != "unpacked") {
      co_return Refuse(Fault::kInvalid, "the uploaded files cannot be unpacked: %.500s",
                       last.c_str());
    }
  }
  co_return Done();
}

Task<Outcome<Done>> TemplateBuilder::Build(BuildRecord* build, const StepsFile& steps,
                                           std::string work) {
  const pool::Config& config = node_->context().config;
  std::string name = build->template_id;
  std::error_code failed;
  if (fs::exists(config.home + "/templates/" + name, failed)) name += "." + build->id.substr(0, 8);
  Words words = BuildWords(config.vmm, name, work, *build);
  bool is_made = false;
  std::string error, step = "base";
  const std::string id = build->id;
  auto take = [&](const std::string& line) {
    json::error_code wrong;
    json::value value = json::parse(line, wrong);
    if (wrong || !value.is_object()) {
      if (!line.empty()) Add(id, "info", line, step);
      return;
    }
    const json::object& said = value.get_object();
    std::string event = TextOf(said, "event");
    if (event == "step") {
      const json::value* number = said.if_contains("number");
      size_t at = number != nullptr && number->is_int64() && number->get_int64() > 0
                      ? static_cast<size_t>(number->get_int64()) - 1
                      : 0;
      step = at < steps.step_of.size() ? steps.step_of[at] : "finalize";
      Add(id, "info", TextOf(said, "text"), step);
    } else if (event == "output") {
      std::string text = TextOf(said, "text");
      while (text.ends_with('\n')) text.pop_back();
      Add(id, "info", std::move(text), step);
    } else if (const json::value* ok = said.if_contains("ok"); ok != nullptr && ok->is_bool()) {
      is_made = ok->get_bool();
      error = TextOf(said, "error");
    }
  };
  POOL_CO_TRY(co_await ReadLines(node_->context().io, words, HomeVariable(config.home), take));
  if (!is_made) {
    build->step = step;
    if (error.empty()) error = "the build has ended without a word";
    co_return Refuse(Fault::kInvalid, "%.900s", error.c_str());
  }
  build->folder = name;
  co_return Done();
}

void TemplateBuilder::Finish(BuildRecord build, const Outcome<Done>& done,
                             const std::vector<std::string>& tags) {
  build.finished_ms = pool::WallClockMs();
  build.status = done.ok() ? "ready" : "error";
  if (!done.ok()) {
    build.reason = done.refusal().message;
    Add(build.id, "error", build.reason, build.step);
  }
  spdlog::info("build {} of template {}: {}{}{}", build.id, build.template_id, build.status,
               done.ok() ? "" : ": ", build.reason);
  Status put = catalog_->Put(build);
  for (const std::string& tag : tags) {
    if (done.ok() && put.ok()) put = catalog_->PutTag(build.template_id, tag, build.id);
  }
  if (!put.ok()) spdlog::error("build {}: {}", build.id, put.error().message());
}

}  // namespace cube::api
