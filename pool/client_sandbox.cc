#include "pool/client_sandbox.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>

#include "pool/client_connection.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

void AddCreate(CLI::App* group, Words* words) {
  CLI::App* create = group->add_subcommand("create", "Make one; prints its id");
  auto* from = create->add_option("template", words->template_name, "the template's name");
  create->add_option("--snapshot", words->snapshot, "a snapshot's id, instead of a template")
      ->excludes(from);
  create->add_option("-e,--env", words->environment, "NAME=VALUE for everything in it")
      ->allow_extra_args(false);
  create->add_option("-m,--metadata", words->metadata, "KEY=VALUE, for you")
      ->allow_extra_args(false);
  create->add_option("--timeout", words->timeout, "seconds until its time is over");
  create->add_option("--on-timeout", words->on_timeout, "what happens then")
      ->check(CLI::IsMember({"kill", "pause"}));
  create->add_option("--token", words->token, "its access token");
  create->add_option("--limit-memory", words->limit_memory, "MiB of the host's memory");
  create->add_option("--limit-cpus", words->limit_cpus, "processors' worth of time");
}

CLI::App* AddOfSandbox(CLI::App* group, const char* name, const char* what, Words* words) {
  CLI::App* one = group->add_subcommand(name, what);
  one->add_option("id", words->id, "the sandbox's id")->required();
  return one;
}

Result<json::object> CreateRequest(const Words& words) {
  json::object request = {{"op", "sandbox.create"}};
  if (!words.template_name.empty()) request["template"] = words.template_name;
  if (!words.snapshot.empty()) request["snapshot"] = words.snapshot;
  if (!words.environment.empty()) request["environment"] = json::value_from(words.environment);
  if (!words.token.empty()) request["token"] = words.token;
  if (!words.on_timeout.empty()) request["on_timeout"] = words.on_timeout;
  if (words.timeout != 0) request["timeout_seconds"] = words.timeout;
  if (words.limit_memory != 0) request["limit_memory_mib"] = words.limit_memory;
  if (words.limit_cpus != 0) request["limit_cpus"] = words.limit_cpus;
  json::object metadata;
  for (const std::string& pair : words.metadata) {
    size_t equals = pair.find('=');
    if (equals == std::string::npos) return Errorf("\"%s\" is not KEY=VALUE", pair.c_str());
    metadata[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  if (!metadata.empty()) request["metadata"] = std::move(metadata);
  return request;
}

// Whether its log may grow yet.
bool IsAlive(const Words& words) {
  auto connection = ClientConnection::Open(SocketOf(words));
  if (!connection.ok()) return false;
  auto answer =
      connection->Ask(json::serialize(json::object{{"op", "sandbox.info"}, {"id", words.id}}));
  auto object = answer.ok() ? Understand(*answer) : Result<json::object>(answer.error());
  if (!object.ok()) return false;
  const json::value* sandbox = object->if_contains("sandbox");
  const json::object* inner = sandbox != nullptr ? sandbox->if_object() : nullptr;
  const json::value* state = inner != nullptr ? inner->if_contains("state") : nullptr;
  return state != nullptr && *state != "dead";
}

// Its log, or from its cursor on what is new. With --json: each piece is an answer.
int PrintLogs(const Words& words) {
  constexpr useconds_t kLook = 200'000;
  json::object request = {{"op", "sandbox.logs"}, {"id", words.id}, {"cursor", words.cursor}};
  if (words.as_json && !words.follow) return Ask(words, request, PrintNothing);
  Words plain = words;
  plain.as_json = false;
  for (bool lasts = true;;) {
    bool more = false;
    int status = Ask(plain, request, [&](const json::object& answer) {
      const json::value* text = answer.if_contains("text");
      const json::value* cursor = answer.if_contains("cursor");
      if (text == nullptr || cursor == nullptr || !text->is_string()) return;
      more = !text->get_string().empty();
      request["cursor"] = *cursor;
      if (!words.as_json) {
        fwrite(text->get_string().data(), 1, text->get_string().size(), stdout);
      } else if (more) {
        printf("%s\n", json::serialize(answer).c_str());
      }
    });
    if (words.follow && fflush(stdout) != 0) return 0;
    if (status != 0) return words.follow && !lasts ? 0 : status;
    if (more) continue;
    if (!words.follow || !lasts) return 0;
    // What it says as it ends is read once more.
    lasts = IsAlive(words);
    if (lasts) usleep(kLook);
  }
}

int ToolCommand(const std::string& action, const Words& words) {
  // As others who run commands elsewhere say that they could not.
  constexpr int kNotRun = 125;
  if (action == "cp") {
    auto copied = CopyTool(SocketOf(words), words.tools, words.as_json);
    return copied.ok() ? *copied : Fail(words, copied.error());
  }
  ToolWords tools = words.tools;
  tools.exec.as_json = words.as_json;
  auto status = ExecTool(SocketOf(words), tools);
  if (!status.ok()) Fail(words, status.error());
  // A thread may be reading stdin yet.
  fflush(nullptr);
  _exit(status.ok() ? *status : kNotRun);
}

}  // namespace

void AddSandboxCommands(CLI::App* app, Words* words) {
  CLI::App* group = app->add_subcommand("sandbox", "Sandboxes");
  group->require_subcommand(1);
  AddCreate(group, words);
  CLI::App* list = group->add_subcommand("ls", "All of them");
  list->add_option("--state", words->state, "only those that are running, paused, dead, ...");
  AddOfSandbox(group, "info", "What one is", words);
  AddOfSandbox(group, "kill", "End one", words);
  AddOfSandbox(group, "pause", "Put one to disk: it takes no memory then", words);
  CLI::App* resume = AddOfSandbox(group, "resume", "Let a paused one go on", words);
  CLI::App* connect = AddOfSandbox(group, "connect", "Resume it if it is paused", words);
  CLI::App* timeout = AddOfSandbox(group, "timeout", "Give it so many seconds from now on", words);
  timeout->add_option("seconds", words->timeout, "seconds")->required();
  for (CLI::App* one : {resume, connect}) {
    one->add_option("--timeout", words->timeout, "seconds until its time is over");
  }
  CLI::App* fork = AddOfSandbox(group, "fork", "Running copies of a running one", words);
  fork->add_option("-n,--count", words->count, "how many")->capture_default_str();
  CLI::App* snapshot = AddOfSandbox(group, "snapshot", "Keep how it is now; prints the id", words);
  snapshot->add_option("--name", words->name, "what you call it");
  CLI::App* rollback = AddOfSandbox(group, "rollback", "Put it back to a snapshot", words);
  rollback->add_option("snapshot", words->snapshot, "the snapshot's id")->required();
  CLI::App* logs = AddOfSandbox(group, "logs", "What its programs and its VMM have said", words);
  logs->add_option("--cursor", words->cursor, "what an answer with --json said to go on from");
  logs->add_flag("-f,--follow", words->follow, "go on until the sandbox has ended");
  AddSandboxTools(group, &words->tools);
  AddOfSandbox(group, "metrics", "What it uses", words);
}

int SandboxCommand(const std::string& action, const Words& words) {
  static const std::vector<ClientColumn> kColumns = {{"ID", "id"},
                                                     {"TEMPLATE", "template"},
                                                     {"STATE", "state"},
                                                     {"CREATED", "created_ms"},
                                                     {"UNTIL", "deadline_ms"},
                                                     {"MIB", "memory_mib"},
                                                     {"METADATA", "metadata"}};
  if (action == "create") {
    auto request = CreateRequest(words);
    if (!request.ok()) return Fail(words, request.error());
    return Ask(words, *request, OnlyId("sandbox"));
  }
  if (action == "ls") {
    json::object request = {{"op", "sandbox.list"}};
    if (!words.state.empty()) request["state"] = words.state;
    return Ask(words, request, Rows("sandboxes", kColumns));
  }
  if (action == "logs") return PrintLogs(words);
  if (action == "exec" || action == "cp") return ToolCommand(action, words);
  json::object request = {{"op", "sandbox." + action}, {"id", words.id}};
  if (words.timeout != 0 || action == "timeout") request["timeout_seconds"] = words.timeout;
  if (action == "fork") {
    request["count"] = words.count;
    return Ask(words, request, Rows("sandboxes", kColumns));
  }
  if (action == "snapshot") {
    request["name"] = words.name;
    return Ask(words, request, OnlyId("snapshot"));
  }
  if (action == "rollback") request["snapshot"] = words.snapshot;
  bool shows = action == "info" || action == "metrics";
  return Ask(words, request, shows ? Printer(PrintAll) : Printer(PrintNothing));
}

}  // namespace cube::pool
