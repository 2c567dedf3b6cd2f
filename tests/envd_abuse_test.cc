// Clients that the agent of a sandbox is not to suffer from, by vsock, on a clone.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <vector>

#include "guestkernel/agent/connect/envelope.h"
#include "tests/envd_sandbox.h"

namespace cube::testing {
namespace {

using std::string_literals::operator""s;

constexpr char kStart[] = "/process.Process/Start";
constexpr char kStreamType[] = "application/connect+json";
constexpr char kSendSignal[] = "/process.Process/SendSignal";

class EnvdAbuseTest : public EnvdSandboxTest {
 protected:
  // What the agent says to these bytes, and the end of the connection.
  std::string Answered(const std::string& bytes) {
    Client client = Connect();
    client.http().Send(bytes);
    Answer answer = client.http().ReadAnswer();
    return std::to_string(answer.status) + (client.http().AtEnd() ? "" : " and goes on");
  }
  void ExpectServed() { EXPECT_EQ(Output("echo served"), "served"); }
};

TEST_F(EnvdAbuseTest, HalfAndWrongMessages) {
  auto answer = [this](const std::string& body) {
    return Request("POST", kStart, {{"Content-Type", kStreamType}}, &body).body;
  };
  for (const std::string& body : {""s, "\0\0"s, "\0\0\0\0\x09{}"s, "\0\xff\xff\xff\xff{}"s,
                                  "\1\0\0\0\2{}"s, "\0\0\0\0\2[]"s}) {
    const std::string text = answer(body);
    EXPECT_EQ(text[0], agent::connect::kEnvelopeEnd) << text;
    EXPECT_NE(text.find("\"error\""), std::string::npos) << text;
  }
  // Whoever leaves in the middle.
  for (const char* part :
       {"P", "POST /process.Process/Start HTTP/1.1\r\nContent-Le",
        "POST /process.Process/Start HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/connect+json\r\nContent-Length: 100\r\n\r\n{"}) {
    Connect().http().Send(part);
  }
  EXPECT_EQ(Answered("\x16\x03\x01\x02"s), "400");
  EXPECT_EQ(Answered("GET / HTTP/9.9\r\n\r\n"), "400");
  EXPECT_EQ(Answered("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), "400");
  ExpectServed();
}

TEST_F(EnvdAbuseTest, HeadsAreBounded) {
  const std::string start = "GET /health HTTP/1.1\r\n";
  EXPECT_EQ(Answered(start + "X: " + std::string(100'000, 'x') + "\r\n\r\n"), "431");
  std::string fields;
  for (int i = 0; i < 300; ++i) fields += "X" + std::to_string(i) + ": y\r\n";
  EXPECT_EQ(Answered(start + fields + "\r\n"), "431");
  EXPECT_EQ(Answered("GET /" + std::string(100'000, 'x')), "431");
  ExpectServed();
}

TEST_F(EnvdAbuseTest, PathsLeadWhereTheyAreAllowedTo) {
  EXPECT_EQ(Call("/filesystem.Filesystem/Stat", R"({"path":"../../../../../etc/shadow"})"), "");
  const std::string body = "x";
  const Fields plain = {{"Content-Type", "application/octet-stream"}};
  EXPECT_EQ(Request("POST", "/files?path=/etc/%00passwd", plain, &body).status, 400);
  EXPECT_EQ(Request("POST", "/files?path=/home", plain, &body).status, 400);
  EXPECT_EQ(Request("GET", "/files?path=/etc/%2e%2e/%2e%2e/root").status, 400);
  EXPECT_EQ(Request("GET", "/files?path=~root/x").status, 400);
  EXPECT_EQ(Request("GET", "/files?path=/dev/zero").status, 400);
  EXPECT_EQ(Request("GET", "/files?path=" + std::string(5000, 'x')).status / 100, 4);
  Output("ln -s /etc /home/user/link; ln -s loop /home/user/loop");
  EXPECT_EQ(Request("GET", "/files?path=loop").status / 100, 4);
  // A link is removed itself, not what it leads to.
  EXPECT_EQ(Call("/filesystem.Filesystem/Remove", R"({"path":"/home/user/link"})"), "");
  EXPECT_NE(Output("wc -c < /etc/passwd"), "0");
  EXPECT_EQ(Request("GET", "/../../etc/passwd").status, 404);
}

TEST_F(EnvdAbuseTest, AThousandIdleConnections) {
  const int64_t before = AgentKib();
  std::vector<Client> idle;
  for (int i = 0; i < 1000; ++i) idle.push_back(Connect());
  ExpectServed();
  EXPECT_LT(AgentKib() - before, 4 * 1024);
  // They are served when they ask for it.
  for (Client& each : idle) {
    each.http().SendRequest("GET", "/health");
    EXPECT_EQ(each.http().ReadAnswer().status, 204);
  }
  ExpectServed();
}

TEST_F(EnvdAbuseTest, SlowReadersCostWhatTheAgentHasForAllOfThem) {
  int64_t pid;
  Client first = Start("read go; exec yes", &pid);
  // All of them are owed the same, and none takes it.
  std::vector<Client> slow;
  for (int i = 0; i < 400; ++i) {
    slow.push_back(Connect());
    ASSERT_TRUE(slow.back().Open("/process.Process/Connect", OfProcess(pid)));
  }
  EXPECT_EQ(Call("/process.Process/SendInput", OfProcess(pid, R"("input":{"stdin":"Cg=="})")), "");
  // Until the process waits in write(2): asleep whenever one looks.
  const std::string state = "cut -d ' ' -f 3 /proc/" + std::to_string(pid) + "/stat";
  for (int asleep = 0; asleep < 20;) asleep = Output(state) == "S" ? asleep + 1 : 0;
  // A quarter of 512 MiB, and itself; without a bound it is 400 times what one is owed.
  EXPECT_LT(AgentKib(), 128 * 1024);
  // One that reads is not kept waiting by those of other processes that do not.
  EXPECT_EQ(Output("seq 100000 | tail -n 1"), "100000");
  slow.clear();
  Transcript some =
      ReadEvents(&first, [](const Transcript& all) { return all.out.size() > 4 << 20; });
  EXPECT_EQ(some.out.find_first_not_of("y\n"), std::string::npos);
  EXPECT_EQ(Call(kSendSignal, OfProcess(pid, R"("signal":"SIGNAL_SIGKILL")")), "");
  EXPECT_EQ(ReadEvents(&first).exit_code(), -1);
}

TEST_F(EnvdAbuseTest, HalfRequestsOfAllTogetherAreBounded) {
  // Each sends most of a message that is allowed to be so large, and then nothing.
  const std::string head =
      "POST /process.Process/List HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 8000000\r\n\r\n";
  const std::string part(7'000'000, ' ');
  std::vector<Client> clients;
  int refused = 0;
  for (int i = 0; i < 30 && refused == 0; ++i) {
    clients.push_back(Connect());
    clients.back().http().Send(head + part);
    // It has been read before the next one is, or has been refused: a client knows by its answer.
    const std::string body = " {}";
    Client probe = Connect();
    auto [status, message] =
        probe.Call("/process.Process/List", body + std::string(7'900'000, ' '));
    if (status == 200) continue;
    ++refused;
    EXPECT_EQ(status, 429);
    const std::string why = boost::json::serialize(message);
    EXPECT_NE(why.find("resource_exhausted"), std::string::npos) << why;
    EXPECT_NE(why.find("bytes of the"), std::string::npos) << why;
  }
  EXPECT_EQ(refused, 1);
  EXPECT_LT(AgentKib(), 160 * 1024);
  ExpectServed();
  clients.clear();
  EXPECT_EQ(Call("/process.Process/List", " {}" + std::string(7'900'000, ' ')), "");
}

TEST_F(EnvdAbuseTest, AForkBombInAGroupOfItsOwn) {
  Output(
      "mkdir -p /run/groups; mount -t cgroup2 none /run/groups; mkdir /run/groups/bomb; "
      "echo +pids > /run/groups/cgroup.subtree_control; echo 60 > /run/groups/bomb/pids.max");
  int64_t pid;
  Client bomb = Start(
      "echo $$ > /run/groups/bomb/cgroup.procs; exec python3 -c '\n"
      "import os\n"
      "while True:\n"
      "  try: os.fork()\n"
      "  except OSError: os.write(1, b\"limit\")\n'",
      &pid);
  ReadEvents(&bomb, [](const Transcript& all) { return all.out.size() > 5000; });
  EXPECT_EQ(Output("cat /run/groups/bomb/pids.current"), "60");
  ExpectServed();
  EXPECT_EQ(Request("GET", "/health").status, 204);
  Output("echo 1 > /run/groups/bomb/cgroup.kill");
  EXPECT_EQ(ReadEvents(&bomb).exit_code(), -1);
  ExpectServed();
}

}  // namespace
}  // namespace cube::testing
