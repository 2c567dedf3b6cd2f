// The agent with a child of this machine and a thread in the VMM's place, over memory and a pseudo
// terminal in place of the control device and the serial port.

#include "guestkernel/agent/agent.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace cube::agent {
namespace {

using namespace std::string_literals;

struct Memory {
  alignas(4096) uint8_t bytes[abi::kMailboxSize] = {};
};

// The VMM's side. Its thread sleeps until the doorbell rings and never looks at the clock, so a
// wake-up that either side forgets shows as a test that hangs.
class FakeHost final : public Doorbell {
 public:
  FakeHost() {
    auto* header = reinterpret_cast<abi::MailboxHeader*>(memory_->bytes);
    header->magic = abi::kMailboxMagic;
    header->version = abi::kMailboxVersion;
    int master = -1;
    int slave = -1;
    char path[64];
    EXPECT_EQ(openpty(&master, &slave, path, nullptr, nullptr), 0);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    serial_.Reset(master);
    guest_serial_.Reset(slave);
    console_path_ = path;
  }

  // Doorbell, called by the agent's thread.
  void Send(abi::Command command, uint32_t argument) override {
    std::lock_guard lock(mutex_);
    EXPECT_EQ(command, abi::Command::kExit);
    exit_status_ = argument;
    rung_ = true;
    changed_.notify_one();
  }
  void Notify() override {
    std::lock_guard lock(mutex_);
    ++notifications_;
    rung_ = true;
    changed_.notify_one();
  }

  // Runs an agent in this thread and the host in another until the agent says kExit.
  void Run() {
    Result<Mailbox> mailbox = Mailbox::Over(memory_->bytes);
    ASSERT_TRUE(mailbox.ok());
    Result<Console> console = Console::Open(console_path_);
    ASSERT_TRUE(console.ok()) << console.error().message();
    std::unique_ptr<EventLoop> loop = EventLoop::Create().value();
    std::unique_ptr<ChildReaper> reaper = ChildReaper::Create(loop.get()).value();
    Result<std::unique_ptr<Agent>> created =
        Agent::Create({&*mailbox, this, &*console, loop.get(), reaper.get(), /*hosts=*/nullptr,
                       /*on_identity=*/{}});
    ASSERT_TRUE(created.ok()) << created.error().message();
    Agent* agent = created->get();
    std::thread host([this] { Serve(); });
    Status status = agent->Run();
    EXPECT_TRUE(status.ok());
    host.join();
  }

  void QueueFrame(abi::FrameType type, const void* payload, size_t size) {
    abi::FrameHeader header = {static_cast<uint32_t>(type), static_cast<uint32_t>(size)};
    to_guest_.append(reinterpret_cast<const char*>(&header), sizeof header);
    to_guest_.append(static_cast<const char*>(payload), size);
  }
  void QueueStart(const std::vector<std::string>& arguments,
                  const std::vector<std::string>& variables = {}, const std::string& directory = "",
                  abi::StartHeader header = {}) {
    header.argument_count = static_cast<uint32_t>(arguments.size());
    header.variable_count = static_cast<uint32_t>(variables.size());
    std::string payload(reinterpret_cast<const char*>(&header), sizeof header);
    for (const auto& text : arguments) payload += text + '\0';
    for (const auto& text : variables) payload += text + '\0';
    payload += directory + '\0';
    QueueFrame(abi::FrameType::kStart, payload.data(), payload.size());
  }
  void QueueShell(const std::string& script) { QueueStart({"/bin/sh", "-c", script}); }
  void QueueSignal(int number) {
    abi::SignalPayload payload = {static_cast<uint32_t>(number)};
    QueueFrame(abi::FrameType::kSignal, &payload, sizeof payload);
  }

  // To be set before Run().
  std::string stdin_text;
  bool end_stdin = true;
  uint32_t stdout_piece = 1 << 20;  // how much is taken from stdout at a time
  std::string stdout_until;         // having seen this, leave the ring
  // Called by the host's thread, which may queue frames: each time it looks at the rings, when the
  // program runs, when there is more of its output.
  std::function<void()> on_turn;
  std::function<void()> on_started;
  std::function<void(const std::string&)> on_output;

  // The results.
  std::string out;
  std::string err;
  std::vector<Frame> frames;
  std::optional<uint32_t> exit_status() const { return exit_status_; }
  uint32_t notifications() const { return notifications_; }
  bool guest_left_stdin() {
    return reinterpret_cast<abi::MailboxHeader*>(memory_->bytes)
               ->rings[static_cast<uint32_t>(abi::RingId::kStdin)]
               .consumer_gone.load() != 0;
  }
  int serial() const { return serial_.get(); }
  std::optional<int> wait_status() const {
    for (const Frame& frame : frames) {
      if (frame.type != static_cast<uint32_t>(abi::FrameType::kExited)) continue;
      abi::ExitedPayload payload;
      EXPECT_EQ(frame.payload.size(), sizeof payload);
      memcpy(&payload, frame.payload.data(), sizeof payload);
      return static_cast<int>(payload.wait_status);
    }
    return std::nullopt;
  }
  std::string start_failure() const {
    for (const Frame& frame : frames) {
      if (frame.type != static_cast<uint32_t>(abi::FrameType::kStartFailed)) continue;
      return std::string(frame.payload.begin() + sizeof(abi::FailedPayload), frame.payload.end());
    }
    return "";
  }

 private:
  // Takes the guest's word that it sleeps and wakes it, as the VMM does after it changed a ring.
  void WakeGuest() {
    auto* header = reinterpret_cast<abi::MailboxHeader*>(memory_->bytes);
    if (header->guest_sleeps.exchange(0) == 0) return;
    ASSERT_EQ(write(serial_.get(), "\n", 1), 1);
  }

  static bool Give(RingProducer* ring, const std::string& text, size_t* done) {
    bool changed = false;
    while (*done < text.size() && !ring->ConsumerGone()) {
      uint32_t n = ring->Write(
          std::span(reinterpret_cast<const uint8_t*>(text.data()) + *done, text.size() - *done));
      if (n > 0) {
        *done += n;
        changed = true;
        continue;
      }
      ring->WaitForSpace();
      if (ring->Free() == 0) break;
    }
    return changed;
  }
  static bool Take(RingConsumer* ring, std::string* text, uint32_t piece) {
    std::vector<uint8_t> buffer(std::min<uint32_t>(piece, 1 << 16));
    bool wake = false;
    uint32_t n = ring->Read(buffer, &wake);
    text->append(buffer.begin(), buffer.begin() + n);
    return wake;
  }

  void Serve() {
    auto to_guest = OpenRing<RingProducer>(memory_->bytes, abi::RingId::kToGuest);
    FrameReader from_guest(OpenRing<RingConsumer>(memory_->bytes, abi::RingId::kFromGuest));
    auto in = OpenRing<RingProducer>(memory_->bytes, abi::RingId::kStdin);
    auto stdout_ring = OpenRing<RingConsumer>(memory_->bytes, abi::RingId::kStdout);
    auto stderr_ring = OpenRing<RingConsumer>(memory_->bytes, abi::RingId::kStderr);
    size_t to_guest_done = 0;
    size_t in_done = 0;
    bool in_ended = false;
    bool left_stdout = false;
    while (true) {
      bool exited;
      {
        std::unique_lock lock(mutex_);
        exited = exit_status_.has_value();
      }
      if (on_turn) on_turn();
      bool wake = Give(&to_guest, to_guest_, &to_guest_done);
      wake |= Give(&in, stdin_text, &in_done);
      if (end_stdin && !in_ended && in_done == stdin_text.size()) {
        in.End();
        in_ended = true;
        wake = true;
      }
      size_t out_before = out.size();
      if (!left_stdout) wake |= Take(&stdout_ring, &out, stdout_piece);
      if (!left_stdout && !stdout_until.empty() && out.find(stdout_until) != std::string::npos) {
        stdout_ring.Leave();
        left_stdout = true;
        wake = true;
      }
      wake |= Take(&stderr_ring, &err, 1 << 20);
      size_t frames_before = frames.size();
      while (true) {
        Result<std::optional<Frame>> frame = from_guest.Next();
        ASSERT_TRUE(frame.ok());
        if (!frame->has_value()) break;
        if ((*frame)->type == static_cast<uint32_t>(abi::FrameType::kStarted) && on_started) {
          on_started();
        }
        // A program that cannot be started is the end of a run.
        if ((*frame)->type == static_cast<uint32_t>(abi::FrameType::kStartFailed) &&
            frames.empty()) {
          QueueShell("exit 0");
        }
        frames.push_back(std::move(**frame));
      }
      wake |= from_guest.TakeHostWaits();
      if (out.size() > out_before && on_output) on_output(out);
      if (wake) WakeGuest();
      bool busy = wake || out.size() > out_before || frames.size() > frames_before ||
                  to_guest_done < to_guest_.size();
      if (busy && !(to_guest_done < to_guest_.size() && to_guest.Free() == 0)) continue;
      if (exited) return;
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return rung_; });
      rung_ = false;
    }
  }

  std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();
  UniqueFd serial_;
  UniqueFd guest_serial_;  // keeps the terminal alive, as the kernel does with a serial port
  std::string console_path_;
  std::string to_guest_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
  uint32_t notifications_ = 0;
  std::optional<uint32_t> exit_status_;
};

class AgentTest : public ::testing::Test {
 protected:
  // Before there are threads: a signal that any of them takes is lost to the agent.
  static void SetUpTestSuite() {
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGPIPE);
    sigprocmask(SIG_BLOCK, &blocked, nullptr);
  }

  FakeHost host_;
};

TEST_F(AgentTest, EchoAndItsExitStatus) {
  host_.QueueStart({"echo", "hello"}, {"PATH=/nowhere:/bin:/usr/bin"});
  host_.Run();
  EXPECT_EQ(host_.out, "hello\n");
  EXPECT_EQ(host_.err, "");
  EXPECT_EQ(host_.exit_status(), 0u);
  EXPECT_EQ(host_.wait_status(), 0);
  ASSERT_EQ(host_.frames.size(), 2u);
  EXPECT_EQ(host_.frames[0].type, static_cast<uint32_t>(abi::FrameType::kStarted));
  // One for kStarted, one or two for the output and its end; kExit is its own.
  EXPECT_LE(host_.notifications(), 4u);
}

TEST_F(AgentTest, ExitCodesAndSignalsAreReported) {
  host_.QueueShell("exit 42");
  host_.Run();
  EXPECT_EQ(host_.exit_status(), 42u);
  EXPECT_EQ(WEXITSTATUS(*host_.wait_status()), 42);

  FakeHost second;
  second.QueueShell("kill -SEGV $$");
  second.Run();
  EXPECT_EQ(second.exit_status(), 128u + SIGSEGV);
  EXPECT_EQ(WTERMSIG(*second.wait_status()), SIGSEGV);
}

TEST_F(AgentTest, AMegabyteThroughCatArrivesUnchanged) {
  for (uint32_t i = 0; i < 1 << 20; ++i) host_.stdin_text += static_cast<char>(i * 31 + i / 253);
  host_.QueueStart({"cat"});
  host_.Run();
  EXPECT_TRUE(host_.out == host_.stdin_text);
  EXPECT_EQ(host_.exit_status(), 0u);
}

TEST_F(AgentTest, StdoutAndStderrStayApart) {
  host_.QueueShell("echo out; echo err >&2; echo out again");
  host_.Run();
  EXPECT_EQ(host_.out, "out\nout again\n");
  EXPECT_EQ(host_.err, "err\n");
}

TEST_F(AgentTest, ASlowReaderHoldsTheChildBackAndLosesNothing) {
  host_.stdout_piece = 611;
  host_.QueueShell("i=0; while [ $i -lt 40 ]; do printf '%08192d' $i; i=$((i+1)); done; echo end");
  host_.Run();
  ASSERT_EQ(host_.out.size(), 40u * 8192 + 4);
  EXPECT_EQ(host_.out.substr(2 * 8192 - 3, 3), "001");
  EXPECT_EQ(host_.out.substr(host_.out.size() - 6), "39end\n");
}

TEST_F(AgentTest, AReaderThatLeavesIsASigpipe) {
  host_.stdout_until = "y\ny\n";
  host_.QueueStart({"yes"});
  host_.Run();
  EXPECT_EQ(host_.exit_status(), 128u + SIGPIPE);
}

TEST_F(AgentTest, AChildThatClosesStdinMakesTheHostStop) {
  host_.stdin_text.assign(1 << 20, 'x');
  host_.QueueShell("trap 'exit 3' TERM; exec <&-; while :; do sleep 1000 & wait; done");
  bool sent = false;
  host_.on_turn = [&] {
    if (!sent && host_.guest_left_stdin()) {
      host_.QueueSignal(SIGTERM);
      sent = true;
    }
  };
  host_.Run();
  EXPECT_TRUE(host_.guest_left_stdin());
  EXPECT_EQ(host_.exit_status(), 3u);
}

TEST_F(AgentTest, TheEnvironmentAndTheFolderAreThoseAsked) {
  host_.QueueStart({"/bin/sh", "-c", "echo $A$B; pwd; env | sort"},
                   {"A=1", "B=two", "PATH=/bin:/usr/bin"}, "/usr");
  host_.Run();
  EXPECT_EQ(host_.out, "1two\n/usr\nA=1\nB=two\nPATH=/bin:/usr/bin\nPWD=/usr\n");
}

TEST_F(AgentTest, AChildIsNotHandedTheAgentsDescriptorsOrSignalMask) {
  host_.QueueShell("ls /proc/self/fd | wc -l; grep SigBlk /proc/self/status");
  host_.Run();
  // 0, 1, 2 and the one that ls reads the folder through.
  EXPECT_EQ(host_.out, "4\nSigBlk:\t0000000000000000\n");
}

TEST_F(AgentTest, SignalsReachTheWholeGroup) {
  host_.end_stdin = false;
  host_.QueueShell("sleep 1000 & sleep 1000");
  host_.on_started = [this] { host_.QueueSignal(SIGTERM); };
  host_.Run();
  EXPECT_EQ(host_.exit_status(), 128u + SIGTERM);
}

TEST_F(AgentTest, AGrandchildThatKeepsThePipesOpenIsNotWaitedFor) {
  host_.QueueShell("sleep 1000 & echo $!; exit 5");
  host_.Run();
  EXPECT_EQ(host_.exit_status(), 5u);
  pid_t grandchild = atoi(host_.out.c_str());
  ASSERT_GT(grandchild, 1);
  EXPECT_EQ(kill(grandchild, SIGKILL), 0);
}

TEST_F(AgentTest, AProgramThatIsNotThereIsAFailureAndAnotherMayBeStarted) {
  host_.QueueStart({"no-such-program"});
  host_.Run();
  EXPECT_EQ(host_.start_failure(), "cannot run 'no-such-program': No such file or directory");
  EXPECT_EQ(host_.exit_status(), 0u);
}

TEST_F(AgentTest, StartFailuresSayWhatAndWhy) {
  host_.QueueStart({"/etc/passwd"});
  host_.Run();
  EXPECT_EQ(host_.start_failure(), "cannot run '/etc/passwd': Permission denied");

  FakeHost second;
  second.QueueStart({"true"}, {}, "/no/such/folder");
  second.Run();
  EXPECT_EQ(second.start_failure(),
            "cannot enter the working directory of 'true': No such file or directory");

  FakeHost third;
  third.QueueFrame(abi::FrameType::kStart, "abc", 3);
  third.Run();
  EXPECT_EQ(third.start_failure(), "start request: 3 bytes, the header has 16");
}

TEST_F(AgentTest, OnlyOneProgramRuns) {
  host_.QueueShell("read line");
  host_.end_stdin = false;
  host_.QueueStart({"true"});
  host_.on_started = [this] { host_.QueueSignal(SIGKILL); };
  host_.Run();
  EXPECT_EQ(host_.start_failure(), "a program has been started already");
}

TEST_F(AgentTest, FramesOfUnknownTypeAreIgnored) {
  host_.QueueFrame(static_cast<abi::FrameType>(99), "abc", 3);
  host_.QueueFrame(abi::FrameType::kSignal, "abc", 3);
  host_.QueueSignal(SIGTERM);  // there is no child yet
  host_.QueueShell("exit 6");
  host_.Run();
  EXPECT_EQ(host_.exit_status(), 6u);
}

TEST_F(AgentTest, ManyWakeUpsDoNotStopUpTheSerialPort) {
  // Each line is a round trip with a wake-up each way; a terminal keeps 4095 unread bytes.
  host_.end_stdin = false;
  host_.stdin_text = "line\n";
  int rounds = 0;
  host_.on_output = [&](const std::string&) {
    if (++rounds < 6000) {
      host_.stdin_text += "line\n";
    } else {
      host_.end_stdin = true;
    }
  };
  host_.QueueStart({"cat"});
  host_.Run();
  EXPECT_EQ(host_.exit_status(), 0u);
  EXPECT_EQ(host_.out.size(), host_.stdin_text.size());
}

TEST_F(AgentTest, AChildOnTheConsoleHasItAsItsTerminal) {
  std::string seen;
  std::thread person([&] {
    char buffer[256];
    while (seen.find("[done]") == std::string::npos) {
      pollfd ready = {host_.serial(), POLLIN, 0};
      if (poll(&ready, 1, 10000) <= 0) return;
      ssize_t n = read(host_.serial(), buffer, sizeof buffer);
      if (n <= 0) return;
      size_t asked = seen.find("name?");
      seen.append(buffer, static_cast<size_t>(n));
      if (asked == std::string::npos && seen.find("name?") != std::string::npos) {
        ASSERT_EQ(write(host_.serial(), "cubx\177e\r", 7), 7);
      }
    }
  });
  host_.QueueStart({"/bin/sh", "-c",
                    "test -t 0 && test -t 1 && test -t 2 && : > /dev/tty && stty size; "
                    "printf 'name?'; read name; echo \"hello $name\"; echo '[done]'; exit 9"},
                   {}, "", {.flags = abi::kStartOnConsole, .rows = 33, .columns = 101});
  host_.Run();
  person.join();
  EXPECT_NE(seen.find("33 101\r\n"), std::string::npos) << seen;
  EXPECT_NE(seen.find("hello cube\r\n"), std::string::npos) << seen;
  EXPECT_EQ(host_.exit_status(), 9u);
  EXPECT_EQ(host_.out, "");
}

TEST(Mailbox, OfAnotherKindOrVersionIsRefused) {
  auto memory = std::make_unique<Memory>();
  Result<Mailbox> none = Mailbox::Over(memory->bytes);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().message(),
            "no mailbox at 0xd0001000: found 0x00000000, expected 0x65627563");
  auto* header = reinterpret_cast<abi::MailboxHeader*>(memory->bytes);
  header->magic = abi::kMailboxMagic;
  header->version = 9;
  EXPECT_EQ(Mailbox::Over(memory->bytes).error().message(),
            "the VMM's mailbox has version 9, this agent speaks 1");
}

}  // namespace
}  // namespace cube::agent
