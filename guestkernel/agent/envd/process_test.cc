// The process service with real processes of this machine.

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "guestkernel/agent/connect/envelope.h"
#include "guestkernel/agent/envd/daemon_test.h"

namespace cube::agent::envd {
namespace {

using std::string_literals::operator""s;

constexpr char kStart[] = "/process.Process/Start";
constexpr char kConnect[] = "/process.Process/Connect";
constexpr char kSendInput[] = "/process.Process/SendInput";
constexpr char kSendSignal[] = "/process.Process/SendSignal";

std::string Select(int64_t pid, const std::string& more = "") {
  return "{\"process\":{\"pid\":" + std::to_string(pid) + "}" + more + "}";
}

bool Started(const Transcript& all) { return all.pid != 0; }

class ProcessTest : public DaemonTest {};

TEST(Warm, LeavesNothingBehind) {
  LoopThread thread;
  MemoryBudget memory(16 << 20);
  Daemon daemon(thread.loop.get(), thread.reaper.get(), &memory);
  Status warm = daemon.Warm();
  EXPECT_TRUE(warm.ok()) << warm.error().message();
  EXPECT_EQ(daemon.connections(), 0u);
}

TEST_F(ProcessTest, StreamsComeBetweenStartAndEnd) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("echo out; echo err >&2; exit 3")));
  std::string order;
  while (auto message = client.Next()) {
    const auto& event = message->as_object().at("event").as_object();
    order += std::string(event.begin()->key()) + " ";
  }
  EXPECT_EQ(client.error(), "");
  EXPECT_TRUE(order == "start data data end ") << order;

  Transcript all = Run("echo out; echo err >&2; exit 3");
  EXPECT_GT(all.pid, 1);
  EXPECT_EQ(all.out, "out\n");
  EXPECT_EQ(all.err, "err\n");
  ASSERT_TRUE(all.end);
  EXPECT_EQ(boost::json::serialize(*all.end),
            R"({"exitCode":3,"exited":true,"status":"exit status 3","error":"exit status 3"})");
  EXPECT_EQ(Run("true").exit_code(), 0);
}

TEST_F(ProcessTest, DeathByASignalIsToldAsSuch) {
  Transcript all = Run("kill -KILL $$");
  EXPECT_EQ(boost::json::serialize(*all.end),
            R"({"exitCode":-1,"exited":false,"status":"signal: killed","error":"signal: killed"})");
  // What it left in the pipe comes, who still has the pipe is not waited for.
  all = Run("echo last; sleep 1000 & echo $! >&2; kill -TERM $$");
  EXPECT_EQ(all.out, "last\n");
  EXPECT_EQ(boost::json::value_to<std::string>(all.end->at("status")), "signal: terminated");
  kill(std::stoi(all.err), SIGKILL);
}

TEST_F(ProcessTest, TheEnvironmentIsTheSandboxsThenTheRequests) {
  Transcript all =
      Run("echo $GLOBAL/$E2B_SANDBOX/$E2B_SANDBOX_ID/$HOME/$USER/$LOGNAME; echo $MINE");
  EXPECT_EQ(all.out, "of the sandbox/true/the-sandbox//root/root/root\n\n");
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, R"({"process":{"cmd":"sh","args":["-c","echo $GLOBAL $MINE; pwd"],
                                      "envs":{"GLOBAL":"mine","MINE":"too"},"cwd":"/usr/lib/.."}})"));
  EXPECT_EQ(ReadEvents(&client).out, "mine too\n/usr\n");
}

TEST_F(ProcessTest, UsersAreThoseOfTheMachine) {
  SandboxClient::Fields nobody = {{"Authorization", "Basic bm9ib2R5Og=="}};
  Transcript all =
      Run("id -un; id -Gn; id -g; grep SigBlk /proc/self/status; ulimit -n", "", nobody);
  EXPECT_EQ(all.out, "nobody\nnogroup\n65534\nSigBlk:\t0000000000000000\n1024\n") << error_;
  Run("true", "", {{"Authorization", "Basic bm8tc3VjaC11c2VyOg=="}});
  EXPECT_EQ(error_, "unauthenticated: invalid username: 'no-such-user'");
  Run("true", "", {{"Authorization", "Basic ?"}});
  EXPECT_EQ(error_, "unauthenticated: the authorization is not base64");
}

TEST_F(ProcessTest, WhatCannotBeStartedSaysWhy) {
  SandboxClient client = Connect();
  auto error = [&](const std::string& json) {
    EXPECT_TRUE(client.Open(kStart, json));
    ReadEvents(&client);
    return client.error();
  };
  EXPECT_EQ(error("{}"), "invalid_argument: no command is named");
  EXPECT_EQ(error(R"({"process":{"cmd":"/no/such"}})"),
            "invalid_argument: cannot run '/no/such': No such file or directory");
  EXPECT_EQ(error(R"({"process":{"cmd":"/etc/passwd"}})"),
            "permission_denied: cannot run '/etc/passwd': Permission denied");
  EXPECT_EQ(error(R"({"process":{"cmd":"true","cwd":"/no/such"}})"),
            "invalid_argument: cwd '/no/such' does not exist");
  EXPECT_EQ(error(R"({"process":{"cmd":"true","cwd":"~other"}})"),
            "invalid_argument: path '~other': homes of others have no short form");
  EXPECT_EQ(error(R"({"process":{"cmd":"tr\u0000ue"}})"),
            "invalid_argument: a zero byte in what is to be run");
  EXPECT_EQ(error(R"({"process":{"cmd":"true","envs":{"A=B":"c"}}})"),
            "invalid_argument: 'A=B' cannot be the name of a variable");
  EXPECT_EQ(error(R"({"process":{"cmd":7}})"), "invalid_argument: field 'cmd' is not a string");
  EXPECT_EQ(error("[]"), "invalid_argument: the message is not a JSON object");
  EXPECT_TRUE(error("{").starts_with("invalid_argument: the message is not JSON"))
      << client.error();
  EXPECT_EQ(error(R"({"process":{"cmd":"true"},"pty":{"size":{"cols":70000,"rows":1}}})"),
            "invalid_argument: a terminal has at most 65535 columns and rows");
}

TEST_F(ProcessTest, StdinIsAPipeOrNothing) {
  EXPECT_EQ(Run("cat; readlink /proc/self/fd/0", R"(,"stdin":false)").out, "/dev/null\n");
  SandboxClient client = Connect();
  SandboxClient input = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("cat; echo end")));
  Transcript start = ReadEvents(&client, Started);
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"stdin":"aGVs"})")), "");
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"stdin":""})")), "");
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"stdin":"bG8K"})")), "");
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"pty":"bG8K"})")),
            "failed_precondition");
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"stdin":"?"})")),
            "invalid_argument");
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid)), "invalid_argument");
  EXPECT_EQ(input.ErrorOf("/process.Process/CloseStdin", Select(start.pid)), "");
  Transcript all = ReadEvents(&client);
  EXPECT_EQ(all.out, "hello\nend\n");
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"stdin":"aGVs"})")),
            "not_found");
}

TEST_F(ProcessTest, InputWaitsForAProcessThatReadsSlowly) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("read go; wc -c")));
  Transcript start = ReadEvents(&client, Started);
  // More than a pipe holds: the call lasts until the process has begun to read.
  SandboxClient large = Connect();
  std::thread sender([&] {
    std::string text;
    for (int i = 0; i < 300000; ++i) text += "eHh4";  // "xxx"
    EXPECT_EQ(large.ErrorOf(kSendInput, Select(start.pid, ",\"input\":{\"stdin\":\"Cg==\"}")), "");
    EXPECT_EQ(
        large.ErrorOf(kSendInput, Select(start.pid, ",\"input\":{\"stdin\":\"" + text + "\"}")),
        "");
    EXPECT_EQ(large.ErrorOf("/process.Process/CloseStdin", Select(start.pid)), "");
  });
  EXPECT_EQ(ReadEvents(&client).out, "900000\n");
  sender.join();
}

TEST_F(ProcessTest, AStreamOfInputIsTakenMessageByMessage) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("cat", R"(,"tag":"the cat")")));
  ReadEvents(&client, Started);
  std::string body = connect::MakeEnvelope(0, R"({"start":{"process":{"tag":"the cat"}}})");
  std::string expected;
  for (int i = 0; i < 3000; ++i) {
    body += connect::MakeEnvelope(0, R"({"data":{"input":{"stdin":"bGluZQo="}}})");
    body += connect::MakeEnvelope(0, R"({"keepalive":{}})");
    expected += "line\n";
  }
  SandboxClient input = Connect();
  input.http().SendRequest("POST", "/process.Process/StreamInput",
                           {{"Content-Type", "application/connect+json"}}, &body);
  http::TestClient::Answer answer = input.http().ReadAnswer();
  EXPECT_EQ(answer.body, connect::MakeEnvelope(0, "{}") + connect::MakeEnvelope(2, "{}"));
  EXPECT_EQ(input.ErrorOf("/process.Process/CloseStdin", R"({"process":{"tag":"the cat"}})"), "");
  EXPECT_EQ(ReadEvents(&client).out, expected);
}

TEST_F(ProcessTest, ListHasWhatRunsWithItsConfiguration) {
  SandboxClient client = Connect();
  SandboxClient other = Connect();
  ASSERT_TRUE(
      client.Open(kStart, R"({"process":{"cmd":"/bin/sleep","args":["1000"],"envs":{"A":"b"},
                                      "cwd":"/"},"tag":"t","stdin":false})"));
  Transcript start = ReadEvents(&client, Started);
  EXPECT_EQ(boost::json::serialize(other.Call("/process.Process/List", "{}").second),
            R"({"processes":[{"config":{"cmd":"/bin/sleep","args":["1000"],"envs":{"A":"b"},)"
            R"("cwd":"/"},"pid":)" +
                std::to_string(start.pid) + R"(,"tag":"t"}]})");
  EXPECT_EQ(other.ErrorOf(kSendSignal, R"({"process":{"tag":"t"},"signal":"SIGNAL_SIGTERM"})"), "");
  EXPECT_EQ(ReadEvents(&client).exit_code(), -1);
  EXPECT_EQ(boost::json::serialize(other.Call("/process.Process/List", "").second),
            R"({"processes":[]})");
}

TEST_F(ProcessTest, SelectorsAndSignalsThatMakeNoSenseAreErrors) {
  SandboxClient client = Connect();
  EXPECT_EQ(client.ErrorOf(kSendSignal, Select(99999999, R"(,"signal":9)")), "not_found");
  EXPECT_EQ(client.ErrorOf(kSendSignal, R"({"signal":9})"), "invalid_argument");
  EXPECT_EQ(client.ErrorOf(kSendSignal, R"({"process":{}})"), "invalid_argument");
  EXPECT_EQ(client.ErrorOf(kSendSignal, R"({"process":{"pid":-1}})"), "invalid_argument");
  SandboxClient sleeper = Connect();
  ASSERT_TRUE(sleeper.Open(kStart, Shell("exec sleep 1000")));
  Transcript start = ReadEvents(&sleeper, Started);
  EXPECT_EQ(client.ErrorOf(kSendSignal, Select(start.pid, R"(,"signal":"SIGNAL_OTHER")")),
            "invalid_argument");
  EXPECT_EQ(client.ErrorOf(kSendSignal, Select(start.pid, R"(,"signal":17)")), "unimplemented");
  EXPECT_EQ(
      client.ErrorOf("/process.Process/Update", Select(start.pid, R"(,"pty":{"size":{"cols":1}})")),
      "failed_precondition");
  EXPECT_EQ(client.ErrorOf(kSendSignal, Select(start.pid, R"(,"signal":9)")), "");
  ReadEvents(&sleeper);
  EXPECT_EQ(client.ErrorOf("/process.Process/Nothing", "{}"), "status 404");
}

TEST_F(ProcessTest, AProcessOutlivesItsClientAndOthersMayFollowIt) {
  int64_t pid;
  {
    SandboxClient client = Connect();
    ASSERT_TRUE(client.Open(kStart, Shell("read a; echo got $a; read b; exit 7")));
    pid = ReadEvents(&client, Started).pid;
  }
  SandboxClient first = Connect();
  SandboxClient second = Connect();
  ASSERT_TRUE(first.Open(kConnect, Select(pid)));
  EXPECT_EQ(ReadEvents(&first, Started).pid, pid);
  ASSERT_TRUE(second.Open(kConnect, Select(pid)));
  EXPECT_EQ(ReadEvents(&second, Started).pid, pid);
  SandboxClient input = Connect();
  EXPECT_EQ(input.ErrorOf(kSendInput, Select(pid, R"(,"input":{"stdin":"eAoK"})")), "");
  for (SandboxClient* each : {&first, &second}) {
    Transcript all = ReadEvents(each);
    EXPECT_EQ(all.out, "got x\n");
    EXPECT_EQ(all.exit_code(), 7);
  }
  // One that comes late learns of the end.
  SandboxClient late = Connect();
  ASSERT_TRUE(late.Open(kConnect, Select(pid)));
  Transcript all = ReadEvents(&late);
  EXPECT_EQ(all.pid, pid);
  EXPECT_EQ(all.exit_code(), 7);
  EXPECT_EQ(late.error(), "");
  ASSERT_TRUE(late.Open(kConnect, Select(99999999)));
  ReadEvents(&late);
  EXPECT_EQ(late.error(), "not_found: process with pid 99999999 not found");
}

TEST_F(ProcessTest, TheTimeLimitOfStartIsTheProcesssAndThatOfConnectTheCalls) {
  Transcript all = Run("exec sleep 1000", "", {{"Connect-Timeout-Ms", "50"}});
  EXPECT_EQ(all.exit_code(), -1);
  EXPECT_EQ(error_, "");
  Run("true", "", {{"Connect-Timeout-Ms", "soon"}});
  EXPECT_EQ(error_,
            "invalid_argument: Connect-Timeout-Ms 'soon' is not a number of at most 10 digits");
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("exec sleep 1000"), {{"Connect-Timeout-Ms", "0"}}));
  const int64_t pid = ReadEvents(&client, Started).pid;
  SandboxClient other = Connect();
  ASSERT_TRUE(other.Open(kConnect, Select(pid), {{"Connect-Timeout-Ms", "50"}}));
  ReadEvents(&other);
  EXPECT_EQ(other.error(), "deadline_exceeded: the time limit of the call has passed");
  EXPECT_EQ(other.ErrorOf(kSendSignal, Select(pid, R"(,"signal":"SIGNAL_SIGKILL")")), "");
  EXPECT_EQ(ReadEvents(&client).exit_code(), -1);
}

TEST_F(ProcessTest, ItsTimeOverAProcessTakesItsSessionAlong) {
  SandboxClient client = Connect();
  // A group of its own, as shells with job control make; and the leader has left already.
  ASSERT_TRUE(client.Open(kStart,
                          Shell("bash -mc 'sleep 1000 & echo $!; exec sleep 1000' & echo $!"),
                          {{"Connect-Timeout-Ms", "4000"}}));
  Transcript all = ReadEvents(&client);
  EXPECT_EQ(all.exit_code(), 0);
  EXPECT_EQ(client.error(), "");
  std::istringstream pids(all.out);
  int left = 0;
  for (pid_t pid; pids >> pid; ++left) {
    // Whoever adopts it may not have come to wait for it.
    UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!process.valid()) continue;
    pollfd end = {process.get(), POLLIN, 0};
    EXPECT_EQ(poll(&end, 1, 60'000), 1);
  }
  EXPECT_EQ(left, 2);
}

TEST_F(ProcessTest, WhatIsKeptForAllClientsIsBounded) {
  const std::string part(7'900'000, ' ');
  auto send = [&](http::TestClient* client) {
    return client->Send(
        "POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json\r\n"
        "Content-Length: 8000000\r\n\r\n" +
        part);
  };
  {
    http::TestClient first = ConnectHttp();
    http::TestClient second = ConnectHttp();
    EXPECT_TRUE(send(&first));
    EXPECT_TRUE(send(&second));
    SandboxClient third = Connect();
    EXPECT_EQ(third.ErrorOf("/process.Process/List", "{}" + part), "resource_exhausted");
    SandboxClient fourth = Connect();
    fourth.Open(kStart, Shell("true") + part);
    ReadEvents(&fourth);
    EXPECT_TRUE(fourth.error().starts_with("resource_exhausted: requests and answers of all"))
        << fourth.error();
    EXPECT_EQ(Run("echo small").out, "small\n");
  }
  SandboxClient later = Connect();
  EXPECT_EQ(later.ErrorOf("/process.Process/List", "{}" + part), "");
}

TEST_F(ProcessTest, SilenceIsFilledWithKeepAlives) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("read x"), {{"Keepalive-Ping-Interval", "1"}}));
  const int64_t pid = ReadEvents(&client, Started).pid;
  EXPECT_EQ(boost::json::serialize(*client.Next()), R"({"event":{"keepalive":{}}})");
  SandboxClient other = Connect();
  EXPECT_EQ(other.ErrorOf("/process.Process/CloseStdin", Select(pid)), "");
  EXPECT_EQ(ReadEvents(&client).exit_code(), 1);
}

TEST_F(ProcessTest, ATerminalIsOneAndHasASize) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart,
                          Shell("test -t 0 && test -t 1 && test -t 2 && : > /dev/tty && stty size; "
                                "stat -c %U $(tty); read x; stty size; echo $x; exit 5",
                                R"(,"pty":{"size":{"cols":101,"rows":33}})"),
                          {{"Authorization", "Basic bm9ib2R5Og=="}}));
  Transcript start = ReadEvents(&client, [](const Transcript& all) {
    return all.terminal.find("nobody") != std::string::npos;
  });
  EXPECT_EQ(start.terminal.substr(0, 8), "33 101\r\n");
  SandboxClient other = Connect();
  EXPECT_EQ(other.ErrorOf("/process.Process/Update",
                          Select(start.pid, R"(,"pty":{"size":{"cols":50,"rows":20}})")),
            "");
  EXPECT_EQ(other.ErrorOf("/process.Process/CloseStdin", Select(start.pid)), "failed_precondition");
  EXPECT_EQ(other.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"stdin":"YQ=="})")),
            "failed_precondition");
  EXPECT_EQ(other.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"pty":"aGkN"})")), "");
  Transcript all = ReadEvents(&client);
  EXPECT_NE((start.terminal + all.terminal).find("20 50\r\nhi\r\n"), std::string::npos)
      << all.terminal;
  EXPECT_EQ(all.exit_code(), 5);
  EXPECT_EQ(all.out, "");
}

TEST_F(ProcessTest, ASizeThatAShellPutsBackIsSetAgain) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(
      kStart, Shell("stty size; read x; stty rows 33 cols 101; echo put back; read x; stty size; "
                    "stty rows 7 cols 77; echo its own; read x; stty size",
                    R"(,"pty":{"size":{"cols":101,"rows":33}})")));
  Transcript start = ReadEvents(&client, [](const Transcript& all) {
    return all.terminal.find("33 101\r\n") != std::string::npos;
  });
  SandboxClient other = Connect();
  auto answer = [&] {
    EXPECT_EQ(other.ErrorOf(kSendInput, Select(start.pid, R"(,"input":{"pty":"Cg=="})")), "");
  };
  EXPECT_EQ(other.ErrorOf("/process.Process/Update",
                          Select(start.pid, R"(,"pty":{"size":{"cols":50,"rows":20}})")),
            "");
  answer();
  ReadEvents(&client, [](const Transcript& all) {
    return all.terminal.find("put back") != std::string::npos;
  });
  answer();
  Transcript own = ReadEvents(&client, [](const Transcript& all) {
    return all.terminal.find("its own") != std::string::npos;
  });
  EXPECT_NE(own.terminal.find("20 50\r\n"), std::string::npos) << own.terminal;
  answer();
  Transcript end = ReadEvents(&client);
  EXPECT_NE(end.terminal.find("7 77\r\n"), std::string::npos) << end.terminal;
}

TEST_F(ProcessTest, AKilledTerminalIsReapedAtOnce) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("sleep 1000", R"(,"pty":{"size":{"cols":80,"rows":24}})")));
  const int64_t pid = ReadEvents(&client, Started).pid;
  SandboxClient other = Connect();
  EXPECT_EQ(other.ErrorOf(kSendSignal, Select(pid, R"(,"signal":"SIGNAL_SIGKILL")")), "");
  EXPECT_EQ(ReadEvents(&client).exit_code(), -1);
  EXPECT_LT(kill(static_cast<pid_t>(pid), 0), 0);
}

TEST_F(ProcessTest, OutputIsHeldBackByItsSlowestReaderAndBounded) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open(kStart, Shell("exec yes")));
  const int64_t pid = ReadEvents(&client, Started).pid;
  // Nobody reads: the process waits, in write(2).
  const std::string stat_path = "/proc/" + std::to_string(pid) + "/wchan";
  SandboxClient other = Connect();
  std::string where;
  for (int i = 0; i < 100000 && where.find("pipe") == std::string::npos; ++i) {
    other.Call("/process.Process/List", "{}");
    std::ifstream(stat_path) >> where;
    if (where == "0") break;  // the kernel does not tell
  }
  // Nobody is interested any more: it goes on, into nothing.
  client.http().Close();
  SandboxClient next = Connect();
  ASSERT_TRUE(next.Open(kConnect, Select(pid)));
  Transcript some =
      ReadEvents(&next, [](const Transcript& all) { return all.out.size() > 4 << 20; });
  EXPECT_EQ(some.out.substr(0, 4).find_first_not_of("y\n"), std::string::npos);
  EXPECT_EQ(other.ErrorOf(kSendSignal, Select(pid, R"(,"signal":"SIGNAL_SIGKILL")")), "");
  EXPECT_EQ(ReadEvents(&next).exit_code(), -1);
}

TEST_F(ProcessTest, AMebibyteOfEachStreamArrivesWhole) {
  Transcript all = Run("head -c 1048576 /dev/zero; head -c 1048576 /dev/zero | tr '\\0' e >&2");
  EXPECT_EQ(all.out, std::string(1 << 20, '\0'));
  EXPECT_EQ(all.err, std::string(1 << 20, 'e'));
}

TEST_F(ProcessTest, BrokenEnvelopesAreErrorsOfTheStream) {
  auto answer = [this](const std::string& body) {
    http::TestClient client = ConnectHttp();
    client.SendRequest("POST", kStart, {{"Content-Type", "application/connect+json"}}, &body);
    return client.ReadAnswer().body;
  };
  auto error = [](const std::string& code, const std::string& message) {
    return connect::MakeEnvelope(
        2, R"({"error":{"code":")" + code + R"(","message":")" + message + "\"}}");
  };
  EXPECT_EQ(answer(""), error("invalid_argument", "no message, where there is to be one"));
  EXPECT_EQ(answer("\0\0"s), error("invalid_argument", "the message is not whole"));
  EXPECT_EQ(answer("\0\0\0\0\x09{}"s), error("invalid_argument", "the message is not whole"));
  EXPECT_EQ(
      answer("\0\xff\xff\xff\xff{}"s),
      error("resource_exhausted", "message of 4294967295 bytes, at most 8388608 are possible"));
  EXPECT_EQ(answer("\1\0\0\0\2{}"s),
            error("unimplemented", "compressed message, but no compression was agreed on"));
  EXPECT_EQ(answer("\2\0\0\0\2{}"s), error("invalid_argument", "message with flags 0x02"));
  EXPECT_EQ(answer("\0\0\0\0\2{}\0\0\0\0\2{}"s),
            error("invalid_argument", "a second message, where there is to be one"));
}

TEST_F(ProcessTest, WhatIsNoCallIsRefusedByAStatus) {
  http::TestClient client = ConnectHttp();
  const std::string body = "{}";
  client.SendRequest("GET", "/process.Process/List");
  EXPECT_EQ(client.ReadAnswer().status, 405);
  client.SendRequest("POST", "/process.Process/List", {{"Content-Type", "application/proto"}},
                     &body);
  EXPECT_EQ(client.ReadAnswer().status, 415);
  client.SendRequest("POST", "/process.Process/List",
                     {{"Content-Type", "application/json; charset=utf-8"}}, &body);
  EXPECT_EQ(client.ReadAnswer().status, 200);
  client.SendRequest("POST", "/process.Process/List",
                     {{"Content-Type", "application/json"}, {"Content-Encoding", "br"}}, &body);
  EXPECT_EQ(client.ReadAnswer().status, 501);
  client.SendRequest("POST", kStart, {{"Content-Type", "application/json"}}, &body);
  EXPECT_EQ(client.ReadAnswer().status, 415);
  const std::string large(9 << 20, ' ');
  client.SendRequest("POST", "/process.Process/List", {{"Content-Type", "application/json"}},
                     &large);
  EXPECT_EQ(client.ReadAnswer().status, 429);
}

}  // namespace
}  // namespace cube::agent::envd
