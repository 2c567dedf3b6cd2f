// What clients of a sandbox talk to inside it, by vsock, on a clone: processes, files, settings.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>

#include "guestkernel/agent/envd/signature.h"
#include "tests/envd_sandbox.h"

namespace cube::testing {
namespace {

namespace json = boost::json;

constexpr char kConnect[] = "/process.Process/Connect";
constexpr char kSendInput[] = "/process.Process/SendInput";
constexpr char kSendSignal[] = "/process.Process/SendSignal";
constexpr char kCloseStdin[] = "/process.Process/CloseStdin";
constexpr char kJson[] = "application/json";

bool Started(const agent::envd::Transcript& all) { return all.pid != 0; }

std::string Text(const json::value& value) {
  return std::string(value.as_string().data(), value.as_string().size());
}

class EnvdTest : public EnvdSandboxTest {
 protected:
  // Of a file or folder in the guest.
  static std::string OfPath(const std::string& path, const std::string& more = "") {
    return "{\"path\":\"" + path + "\"" + (more.empty() ? "" : "," + more) + "}";
  }
  // The answer of a call about files.
  json::value Files(const std::string& method, const std::string& message) {
    auto [status, value] = Connect().Call("/filesystem.Filesystem/" + method, message);
    EXPECT_EQ(status, 200) << method << " " << message << " " << json::serialize(value);
    return value;
  }
};

TEST_F(EnvdTest, AProcessOutlivesItsClientAndIsFoundAgain) {
  int64_t pid;
  // The client leaves as soon as it runs.
  Start("read a; echo got $a; read b; exit 7", &pid, R"(,"tag":"kept")");
  Client client = Connect();
  ASSERT_TRUE(client.Open(kConnect, R"({"process":{"tag":"kept"}})"));
  EXPECT_EQ(ReadEvents(&client, Started).pid, pid);
  const std::string list = json::serialize(Connect().Call("/process.Process/List", "{}").second);
  EXPECT_NE(list.find("\"tag\":\"kept\""), std::string::npos) << list;
  EXPECT_EQ(Call(kSendInput, OfProcess(pid, R"("input":{"stdin":"aXQK"})")), "");
  EXPECT_EQ(Call(kCloseStdin, OfProcess(pid)), "");
  Transcript all = ReadEvents(&client);
  EXPECT_EQ(all.out, "got it\n");
  EXPECT_EQ(all.exit_code(), 7);
  // One that comes late learns how it ended.
  ASSERT_TRUE(client.Open(kConnect, OfProcess(pid)));
  EXPECT_EQ(ReadEvents(&client).exit_code(), 7);
  EXPECT_EQ(Call(kSendSignal, OfProcess(pid, R"("signal":"SIGNAL_SIGKILL")")), "not_found");
}

TEST_F(EnvdTest, SignalsAndTimeLimitsEndProcesses) {
  int64_t pid;
  Client client =
      Start("sleep 1000 & trap 'echo caught; kill $!; exit 3' TERM; echo on; wait", &pid);
  ReadEvents(&client, [](const Transcript& all) { return !all.out.empty(); });
  EXPECT_EQ(Call(kSendSignal, OfProcess(pid, R"("signal":"SIGNAL_SIGTERM")")), "");
  Transcript all = ReadEvents(&client);
  EXPECT_EQ(all.out, "caught\n");
  EXPECT_EQ(all.exit_code(), 3);
  // What it has started goes with it, in whatever process group; a daemon of its own does not.
  client = Connect();
  Fields fields = AsRoot();
  fields.emplace_back("Connect-Timeout-Ms", "4000");
  ASSERT_TRUE(client.Open("/process.Process/Start",
                          agent::envd::Shell("bash -mc 'sleep 1001 & sleep 1002 & wait' & "
                                             "setsid sleep 1003 & echo on; sleep 1004"),
                          fields));
  all = ReadEvents(&client);
  EXPECT_EQ(all.exit_code(), -1);
  EXPECT_EQ(Text(all.end->at("status")), "signal: killed");
  EXPECT_EQ(Run("pgrep -c -x -f 'sleep 100[124]'").out, "0\n");
  EXPECT_EQ(Output("pgrep -c -x -f 'sleep 1003'"), "1");
  // One that has ended and has left others with its pipes is not followed for longer either.
  ASSERT_TRUE(client.Open("/process.Process/Start",
                          agent::envd::Shell("sleep 1005 & setsid sleep 1006 & exit 4"), fields));
  EXPECT_EQ(ReadEvents(&client).exit_code(), 4);
  EXPECT_EQ(Run("pgrep -c -x -f 'sleep 1005'").out, "0\n");
}

TEST_F(EnvdTest, ATerminalIsResized) {
  int64_t pid;
  Client client = Start("trap 'stty size' WINCH; stty size; until read x; do :; done; echo got $x",
                        &pid, R"(,"pty":{"size":{"cols":90,"rows":30}})", AsUser());
  auto until = [&](const char* wanted) {
    std::string seen;
    while (seen.find(wanted) == std::string::npos) {
      Transcript some =
          ReadEvents(&client, [](const Transcript& all) { return !all.terminal.empty(); });
      if (some.terminal.empty()) break;
      seen += some.terminal;
    }
    return seen;
  };
  EXPECT_EQ(until("30 90"), "30 90\r\n");
  EXPECT_EQ(
      Call("/process.Process/Update", OfProcess(pid, R"("pty":{"size":{"cols":120,"rows":40}})")),
      "");
  // A read that the signal has interrupted is begun anew.
  EXPECT_EQ(Call(kSendInput, OfProcess(pid, R"("input":{"pty":"aXQK"})")), "");
  const std::string rest = until("got it");
  EXPECT_NE(rest.find("40 120\r\n"), std::string::npos) << rest;
  EXPECT_EQ(ReadEvents(&client).exit_code(), 0);
}

TEST_F(EnvdTest, SilenceIsFilledUntilTheClientIsToldSomething) {
  int64_t pid;
  Fields fields = AsUser();
  fields.emplace_back("Keepalive-Ping-Interval", "1");
  Client client = Start("read x; id -un", &pid, "", fields);
  EXPECT_EQ(json::serialize(*client.Next()), R"({"event":{"keepalive":{}}})");
  EXPECT_EQ(Call(kCloseStdin, OfProcess(pid)), "");
  EXPECT_EQ(ReadEvents(&client).out, "user\n");
}

TEST_F(EnvdTest, FoldersAndFiles) {
  Files("MakeDir", OfPath("/home/user/tree/b/c"));
  EXPECT_EQ(Call("/filesystem.Filesystem/MakeDir", OfPath("/home/user/tree/b")), "already_exists");
  const std::string content = "content";
  EXPECT_EQ(Request("POST", "/files?path=tree/b/d", {{"Content-Type", "application/octet-stream"}},
                    &content)
                .status,
            200);
  json::value stat = Files("Stat", OfPath("tree/b/d"));
  const json::object& entry = stat.as_object().at("entry").as_object();
  EXPECT_EQ(Text(entry.at("path")), "/home/user/tree/b/d");
  EXPECT_EQ(Text(entry.at("owner")), "user");
  EXPECT_EQ(Text(entry.at("size")), "7");
  std::string names;
  json::value listed = Files("ListDir", OfPath("tree", R"("depth":3)"));
  for (const json::value& each : listed.as_object().at("entries").as_array()) {
    names += Text(each.as_object().at("path")) + " ";
  }
  EXPECT_EQ(names, "/home/user/tree/b /home/user/tree/b/c /home/user/tree/b/d ");
  Files("Move", R"({"source":"tree/b/d","destination":"/home/user/moved/here"})");
  EXPECT_EQ(Output("cat /home/user/moved/here"), "content");
  Files("Remove", OfPath("tree"));
  EXPECT_EQ(Call("/filesystem.Filesystem/Stat", OfPath("tree")), "not_found");
}

TEST_F(EnvdTest, ChangesOfAFolderAreTold) {
  Files("MakeDir", OfPath("watched"));
  Client client = Connect();
  ASSERT_TRUE(client.Open("/filesystem.Filesystem/WatchDir",
                          OfPath("watched", R"("recursive":true,"includeEntry":true)")));
  EXPECT_EQ(json::serialize(*client.Next()), R"({"start":{}})");
  Output("mkdir -p /home/user/watched/new/deep; echo x > /home/user/watched/new/deep/file");
  std::string text;
  while (text.find(R"("name":"new/deep/file","type":"EVENT_TYPE_WRITE")") == std::string::npos) {
    std::optional<json::value> next = client.Next();
    ASSERT_TRUE(next) << client.error() << text;
    text = json::serialize(*next);
  }
  EXPECT_NE(text.find("/home/user/watched/new/deep/file"), std::string::npos) << text;
  json::value made = Files("CreateWatcher", OfPath("watched"));
  const std::string watcher =
      "{\"watcherId\":" + json::serialize(made.as_object().at("watcherId")) + "}";
  Output("rm -r /home/user/watched/new");
  json::value events = Files("GetWatcherEvents", watcher);
  EXPECT_NE(json::serialize(events).find("EVENT_TYPE_REMOVE"), std::string::npos);
  Files("RemoveWatcher", watcher);
  EXPECT_EQ(Call("/filesystem.Filesystem/GetWatcherEvents", watcher), "not_found");
}

TEST_F(EnvdTest, MebibytesGoUpAndDownUnchanged) {
  std::string data(8 << 20, '\0');
  std::mt19937_64 random(1);
  for (char& byte : data) byte = static_cast<char>(random());
  EXPECT_EQ(Request("POST", "/files?path=/tmp/large&username=root",
                    {{"Content-Type", "application/octet-stream"}}, &data)
                .status,
            200);
  const std::string sum = Output("sha256sum < /tmp/large");
  Answer answer = Request("GET", "/files?path=/tmp/large");
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.whole);
  EXPECT_TRUE(answer.body == data);
  // And what came down, up again as a form.
  const std::string form = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" +
                           std::string("/tmp/again\"\r\n\r\n") + answer.body + "\r\n--B--\r\n";
  EXPECT_EQ(Request("POST", "/files?username=root",
                    {{"Content-Type", "multipart/form-data; boundary=B"}}, &form)
                .status,
            200);
  EXPECT_EQ(Output("sha256sum < /tmp/again"), sum);
}

TEST_F(EnvdTest, SettingsTokenAndSignedAddresses) {
  EXPECT_EQ(Request("GET", "/health").status, 204);
  json::object metrics = json::parse(Request("GET", "/metrics").body).as_object();
  EXPECT_EQ(metrics["cpu_count"].to_number<int>(), 1);
  EXPECT_LT(metrics["mem_used"].to_number<uint64_t>(), metrics["mem_total"].to_number<uint64_t>());
  const std::string settings =
      R"({"accessToken":"secret","envVars":{"FROM_INIT":"yes"},"defaultWorkdir":"/tmp"})";
  EXPECT_EQ(Request("POST", "/init", {{"Content-Type", kJson}}, &settings).status, 204);
  EXPECT_EQ(Request("GET", "/health").status, 204);
  EXPECT_EQ(Request("GET", "/metrics").status, 401);
  EXPECT_EQ(Call("/process.Process/List", "{}"), "status 401");
  EXPECT_EQ(Call("/process.Process/List", "{}", {{"X-Access-Token", "Secret"}}), "status 401");
  Fields fields = {{"X-Access-Token", "secret"}};
  EXPECT_EQ(Output("echo $FROM_INIT $(id -un) $PWD $E2B_SANDBOX $SHELL", fields),
            "yes user /tmp true /bin/bash");
  auto file = [&](const char* method, const char* operation, const std::string& path,
                  const std::string& signed_path) {
    std::string signature = agent::envd::Sign(signed_path, operation, "user", "secret", nullptr);
    for (size_t at = 0; (at = signature.find('+', at)) != std::string::npos;) {
      signature.replace(at, 1, "%2B");
    }
    const std::string body = "by a signature";
    return Request(method, "/files?path=" + path + "&username=user&signature=" + signature,
                   {{"Content-Type", "application/octet-stream"}},
                   method == std::string("POST") ? &body : nullptr);
  };
  EXPECT_EQ(file("POST", "write", "signed", "signed").status, 200);
  EXPECT_EQ(file("GET", "read", "signed", "signed").body, "by a signature");
  EXPECT_EQ(file("GET", "write", "signed", "signed").status, 401);
  EXPECT_EQ(file("GET", "read", "/etc/passwd", "signed").status, 401);
}

TEST_F(EnvdTest, TheMachineItselfFindsTheSameByTcp) {
  EXPECT_EQ(Output("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:49983/health"), "204");
  EXPECT_EQ(Output("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:49999/health"), "200");
  EXPECT_EQ(Output("curl -s -g -o /dev/null -w '%{http_code}' 'http://[::1]:49983/health'"), "204");
}

TEST_F(EnvdTest, TheAgentIsSmall) {
  for (int i = 0; i < 20; ++i) Output("seq 20000 > /dev/null; seq 2000");
  EXPECT_LE(AgentKib("VmHWM"), 3 * 1024);
}

}  // namespace
}  // namespace cube::testing
