// `cube`: the client of cubed, for people and scripts.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "pool/client_completion.h"
#include "pool/client_connection.h"
#include "pool/client_daemon.h"
#include "pool/client_network.h"
#include "pool/client_table.h"
#include "pool/client_tls.h"
#include "pool/client_tools.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

// As given.
struct Words {
  std::string home = vmm::CubeHome();
  std::string socket;
  bool as_json = false;
  // Of commands.
  std::string id, snapshot, name, template_name, state, cursor, on_timeout, mode = "pause";
  std::string config, vmm, token, listen;
  std::vector<std::string> environment, metadata;
  uint64_t count = 1, timeout = 0, limit_memory = 0;
  double limit_cpus = 0;
  bool no_jail = false, follow = false;
  NetworkWords net;
  std::string shell;
  ToolWords tools;
};

using Printer = std::function<void(const json::object&)>;

int Fail(const Words& words, const Error& error) {
  if (words.as_json) {
    printf("%s\n",
           json::serialize(json::object{{"ok", false}, {"error", error.message()}}).c_str());
  } else {
    fprintf(stderr, "cube: %s\n", error.message().c_str());
  }
  return 1;
}

std::string SocketOf(const Words& words) {
  return words.socket.empty() ? words.home + "/cubed.sock" : words.socket;
}

// The rows of the answer's `member`.
Printer Rows(std::string member, std::vector<ClientColumn> columns) {
  return [member, columns](const json::object& answer) {
    const json::value* rows = answer.if_contains(member);
    if (rows != nullptr && rows->is_array()) PrintTable(rows->get_array(), columns);
  };
}

// The one member that matters to a script, in a line.
Printer OnlyId(std::string member) {
  return [member](const json::object& answer) {
    const json::value* inner = answer.if_contains(member);
    const json::object* object = inner != nullptr ? inner->if_object() : nullptr;
    const json::value* id = object != nullptr ? object->if_contains("id") : nullptr;
    if (id != nullptr) printf("%s\n", ClientText("id", *id).c_str());
  };
}

void PrintAll(const json::object& answer) { PrintMembers(answer); }
void PrintNothing(const json::object&) {}

int Ask(const Words& words, const json::object& request, const Printer& print) {
  auto connection = ClientConnection::Open(SocketOf(words));
  if (!connection.ok()) return Fail(words, connection.error());
  auto answer = connection->Ask(json::serialize(request));
  if (!answer.ok()) return Fail(words, answer.error());
  auto object = Understand(*answer);
  if (words.as_json) {
    printf("%s\n", answer->c_str());
    return object.ok() ? 0 : 1;
  }
  if (!object.ok()) return Fail(words, object.error());
  print(*object);
  return 0;
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

// That somebody can be connected to proves nothing: of a daemon that was killed, a child that has
// not come to its exec may have the socket for a moment.
bool IsUp(const Words& words) {
  auto connection = ClientConnection::Open(SocketOf(words));
  return connection.ok() && connection->Ask("{\"op\":\"node.status\"}").ok();
}

int Up(const Words& words) {
  if (IsUp(words)) {
    return Fail(words, Errorf("cubed runs already in %s", words.home.c_str()));
  }
  std::vector<std::string> arguments = {"--home", words.home};
  if (!words.config.empty()) arguments.insert(arguments.end(), {"--config", words.config});
  if (!words.vmm.empty()) arguments.insert(arguments.end(), {"--vmm", words.vmm});
  if (!words.listen.empty()) arguments.insert(arguments.end(), {"--listen", words.listen});
  if (words.no_jail) arguments.push_back("--no-jail");
  Status started = StartDaemon(arguments, words.home + "/cubed.log");
  if (!started.ok()) return Fail(words, started.error());
  return Ask(words, {{"op", "node.status"}}, PrintAll);
}

int Events(const Words& words) {
  auto connection = ClientConnection::Open(SocketOf(words));
  if (!connection.ok()) return Fail(words, connection.error());
  auto line = connection->Ask("{\"op\":\"events\"}");
  if (!line.ok()) return Fail(words, line.error());
  auto begun = Understand(*line);
  if (!begun.ok()) return Fail(words, begun.error());
  while ((line = connection->Next()).ok()) {
    printf("%s\n", line->c_str());
    if (fflush(stdout) != 0) return 0;
  }
  return Fail(words, line.error());
}

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

int NetworkCommand(const std::string& action, const Words& words) {
  json::object request = NetworkRequest(action, words.net);
  if (action == "list") {
    return Ask(words, request,
               Rows("networks", {{"ID", "id"},
                                 {"ADDRESS", "host_address"},
                                 {"TAP", "tap"},
                                 {"FLOWS", "flows"},
                                 {"OUT", "bytes_out"},
                                 {"IN", "bytes_in"},
                                 {"DENIED", "denied"}}));
  }
  if (action == "show" || action == "stats") return Ask(words, request, PrintAll);
  if (action != "trace") return Ask(words, request, PrintNothing);
  // Each answer waits for verdicts.
  for (;;) {
    int status = Ask(words, request,
                     Rows("verdicts", {{"ID", "id"},
                                       {"", "direction"},
                                       {"", "protocol"},
                                       {"PORT", "port"},
                                       {"REMOTE", "remote"},
                                       {"BYTES", "bytes"},
                                       {"VERDICT", "verdict"}}));
    if (status != 0 || fflush(stdout) != 0) return status;
  }
}

int KeyCommand(const std::string& action, const Words& words) {
  if (action == "create") {
    return Ask(words, {{"op", "key.create"}, {"name", words.name}}, [](const json::object& answer) {
      const json::value* key = answer.if_contains("key");
      if (key != nullptr) printf("%s\n", ClientText("key", *key).c_str());
    });
  }
  if (action == "revoke") {
    return Ask(words, {{"op", "key.revoke"}, {"id", words.id}}, PrintNothing);
  }
  return Ask(words, {{"op", "key.list"}},
             Rows("keys", {{"ID", "id"},
                           {"NAME", "name"},
                           {"PREFIX", "prefix"},
                           {"CREATED", "created_ms"},
                           {"USED", "used_ms"},
                           {"REVOKED", "revoked_ms"}}));
}

int OtherCommand(const std::string& name, const std::string& action, const Words& words) {
  if (name == "up") return Up(words);
  if (name == "events") return Events(words);
  if (name == "down") return Ask(words, {{"op", "node.drain"}, {"mode", words.mode}}, PrintNothing);
  if (name == "reload") return Ask(words, {{"op", "node.reload"}}, PrintNothing);
  if (name == "status") return Ask(words, {{"op", "node.status"}}, PrintAll);
  if (name == "pool") {
    return Ask(words, {{"op", "pool.status"}},
               Rows("pools", {{"TEMPLATE", "template"},
                              {"TARGET", "target"},
                              {"PARKED", "parked"},
                              {"HITS", "hits"},
                              {"MISSES", "misses"},
                              {"MADE", "made"},
                              {"FAILED", "failed"},
                              {"DIED", "died"},
                              {"EVICTED", "evicted"},
                              {"ZYGOTE", "zygote_pid"}}));
  }
  if (name == "template" && action == "rm") {
    return Ask(words, {{"op", "template.delete"}, {"name", words.tools.template_name}},
               PrintNothing);
  }
  if (name == "template") {
    return Ask(words, {{"op", "template.list"}},
               Rows("templates", {{"NAME", "name"},
                                  {"MIB", "memory_mib"},
                                  {"CPUS", "cpus"},
                                  {"CREATED", "created"},
                                  {"ERROR", "error"}}));
  }
  if (action == "rm") {
    return Ask(words, {{"op", "snapshot.delete"}, {"id", words.snapshot}}, PrintNothing);
  }
  return Ask(words, {{"op", "snapshot.list"}},
             Rows("snapshots", {{"ID", "id"},
                                {"NAME", "name"},
                                {"SANDBOX", "sandbox"},
                                {"TEMPLATE", "template"},
                                {"CREATED", "created_ms"}}));
}

int Main(int argc, char** argv) {
  Words words;
  TlsWords tls;
  CLI::App app{"cube: the client of cubed", "cube"};
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", "cube 0.1");
  app.add_option("--home", words.home, "the node's folder")->capture_default_str();
  app.add_option("--socket", words.socket, "cubed's control socket; HOME/cubed.sock");
  app.add_flag("--json", words.as_json, "answers as JSON, errors as well");
  CLI::App* up = app.add_subcommand("up", "Start cubed");
  up->add_option("--config", words.config, "its configuration file");
  up->add_option("--vmm", words.vmm, "the program cube-vmm");
  up->add_option("--listen", words.listen, "ADDRESS:PORT of HTTP, or off; for api.listen");
  up->add_flag("--no-jail", words.no_jail, "run machines without a jail: for debugging");
  CLI::App* down = app.add_subcommand("down", "Take no more creates, see to all sandboxes, end");
  down->add_option("--mode", words.mode, "pause them, or wait until they have ended")
      ->check(CLI::IsMember({"pause", "wait"}))
      ->capture_default_str();
  app.add_subcommand("status", "What the node has and gives");
  app.add_subcommand("reload", "Read the configuration file again");
  app.add_subcommand("events", "Everything that happens, as it happens, as JSON");
  app.add_subcommand("pool", "The warm pools");
  AddSandboxCommands(&app, &words);
  AddNetworkCommands(&app, &words.net);
  CLI::App* templates = app.add_subcommand("template", "Templates");
  templates->require_subcommand(1)->add_subcommand("ls", "All of them");
  CLI::App* build = AddTemplateTools(templates, &words.tools);
  CLI::App* snapshots = app.add_subcommand("snapshot", "Snapshots that were asked for");
  snapshots->require_subcommand(1)->add_subcommand("ls", "All of them");
  snapshots->add_subcommand("rm", "Delete one")
      ->add_option("id", words.snapshot, "the snapshot's id")
      ->required();
  CLI::App* keys = app.add_subcommand("key", "API keys of the HTTP endpoint");
  keys->require_subcommand(1)->add_subcommand("ls", "All of them, without what is secret");
  keys->add_subcommand("create", "Make one; prints it, this once")
      ->add_option("name", words.name, "what you call it");
  keys->add_subcommand("revoke", "It is not valid any more")
      ->add_option("id", words.id, "the key's id or name")
      ->required();
  AddTlsCommands(&app, &tls);
  app.add_subcommand("completion", "A script by which a shell completes commands and ids")
      ->add_option("shell", words.shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  for (CLI::App* group : app.get_subcommands([](CLI::App*) { return true; })) {
    group->fallthrough();
    for (CLI::App* one : group->get_subcommands([](CLI::App*) { return true; })) {
      one->fallthrough();
    }
  }
  // What it does not know is cube-vmm's.
  build->fallthrough(false);
  CLI11_PARSE(app, argc, argv);
  words.home = std::filesystem::absolute(words.home).lexically_normal();
  CLI::App* command = app.get_subcommands().at(0);
  if (command->get_name() == "completion") {
    printf("%s", CompletionScript(app, words.shell).c_str());
    return 0;
  }
  if (build->parsed()) {
    std::vector<std::string> arguments = build->remaining();
    if (words.as_json) arguments.emplace_back("--json");
    return Fail(words, BecomeBuild(words.home, words.tools, arguments));
  }
  auto inner = command->get_subcommands();
  std::string action = inner.empty() ? "" : inner[0]->get_name();
  if (command->get_name() == "sandbox") return SandboxCommand(action, words);
  if (command->get_name() == "key") return KeyCommand(action, words);
  if (command->get_name() == "net") return NetworkCommand(action, words);
  if (command->get_name() == "tls") {
    Status made = TlsCommand(tls, words.home, words.as_json);
    return made.ok() ? 0 : Fail(words, made.error());
  }
  return OtherCommand(command->get_name(), action, words);
}

}  // namespace
}  // namespace cube::pool

int main(int argc, char** argv) { return cube::pool::Main(argc, argv); }
