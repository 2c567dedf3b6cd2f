// `cube`: the client of cubed, for people and scripts.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <string>

#include "pool/client_ask.h"
#include "pool/client_completion.h"
#include "pool/client_connection.h"
#include "pool/client_daemon.h"
#include "pool/client_sandbox.h"
#include "pool/client_tls.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

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

int NetworkCommand(const std::string& action, const Words& words) {
  json::object request = NetworkRequest(action, words.net);
  if (action == "list") {
    return Ask(words, request,
               Rows("networks", {{"ID", "id"},
                                 {"ADDRESS", "host_address"},
                                 {"ADDRESS6", "host_address6"},
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
