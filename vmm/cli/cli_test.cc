#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "base/unique_fd.h"
#include "vmm/cli/console_log.h"
#include "vmm/cli/output_sink.h"
#include "vmm/cli/terminal.h"

namespace cube::vmm {
namespace {

void Say(ConsoleLog* log, std::string_view text) {
  for (char c : text) log->Append(static_cast<uint8_t>(c));
}

TEST(ConsoleLog, FindsThePanicAndTheLastLine) {
  ConsoleLog log;
  EXPECT_EQ(log.PanicMessage(), "");
  EXPECT_EQ(log.LastLine(), "");
  Say(&log, "hello\r\n[ 1.0] Kernel panic - not syncing: Attempted to kill init!\r\nmore\r\n\r\n");
  EXPECT_EQ(log.PanicMessage(), "Attempted to kill init!");
  EXPECT_EQ(log.LastLine(), "more");
}

TEST(ConsoleLog, ARestartIsNotTheReason) {
  ConsoleLog log;
  Say(&log, "cube-agent: no disk\r\n[    1.000000] reboot: Restarting system\r\n");
  EXPECT_EQ(log.LastLine(), "cube-agent: no disk");
  Say(&log, "again\r\n");
  EXPECT_EQ(log.LastLine(), "cube-agent: no disk");
  ConsoleLog bare;
  Say(&bare, "[    1.000000] reboot: Restarting system\r\n");
  EXPECT_EQ(bare.LastLine(), "");
}

TEST(ConsoleLog, KeepsOnlyTheEnd) {
  ConsoleLog log;
  Say(&log, "Kernel panic - not syncing: old\n");
  Say(&log, std::string(ConsoleLog::kKept, 'x'));
  EXPECT_EQ(log.PanicMessage(), "");
  Say(&log, "\nlast");
  EXPECT_EQ(log.LastLine(), "last");
}

TEST(ConsoleLog, ForwardsWithABound) {
  ConsoleLog log;
  int calls = 0;
  log.SetForward([&] { ++calls; });
  Say(&log, "ab");
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(log.Take(), "ab");
  Say(&log, std::string(ConsoleLog::kPendingLimit + 10, 'y'));
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(log.Take().size(), ConsoleLog::kPendingLimit);
}

TEST(OutputSink, APipeThatNobodyReadsTakesWhatFitsAndNeverBlocks) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  UniqueFd reader(ends[0]), writer(ends[1]);
  OutputSink sink(writer.get());
  EXPECT_TRUE(sink.may_block());
  std::vector<uint8_t> block(1 << 20, 'p');
  size_t taken = sink.Write(block);
  EXPECT_GE(taken, 4096u);
  EXPECT_LT(taken, block.size());
  EXPECT_EQ(sink.Write(block), 0u);
  EXPECT_FALSE(sink.closed());
  EXPECT_EQ(fcntl(writer.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(OutputSink, TellsWhenTheReaderHasGone) {
  signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  UniqueFd writer(ends[1]);
  close(ends[0]);
  OutputSink sink(writer.get());
  const uint8_t byte = 1;
  EXPECT_EQ(sink.Write({&byte, 1}), 0u);
  EXPECT_TRUE(sink.closed());
}

TEST(OutputSink, SocketsAndFiles) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd a(ends[0]), b(ends[1]);
  OutputSink socket(a.get());
  std::vector<uint8_t> block(16 << 20, 's');
  size_t taken = socket.Write(block);
  EXPECT_GT(taken, 0u);
  EXPECT_LT(taken, block.size());
  UniqueFd null = OpenFile("/dev/null", O_WRONLY).value();
  OutputSink file(null.get());
  EXPECT_FALSE(file.may_block());
  EXPECT_EQ(file.Write(block), block.size());
}

struct Typing {
  const char* name;
  std::vector<std::string> reads;  // what each read of the terminal gave
  std::string passed;
  bool left;
};

TEST(ConsoleEscape, PassesAllButTheEscape) {
  const Typing cases[] = {
      {"plain text", {"echo x\r"}, "echo x\r", false},
      {"leave", {"\1x"}, "", true},
      {"leave with shift held", {"\1X"}, "", true},
      {"leave after text, before more", {"ls\1xrm"}, "ls", true},
      {"one Ctrl-A", {"\1\1"}, "\1", false},
      {"a Ctrl-A that was sent escapes nothing", {"\1\1x"}, "\1x", false},
      {"two of them", {"\1\1\1\1"}, "\1\1", false},
      {"sent, then leave", {"\1\1\1x"}, "\1", true},
      {"any other key gets both", {"\1a\1\r"}, "\1a\1\r", false},
      {"split over reads", {"ab\1", "x"}, "ab", true},
      {"Ctrl-A split over reads", {"\1", "\1", "x"}, "\1x", false},
      {"other key split over reads", {"\1", "a", "x"}, "\1ax", false},
      {"an empty read changes nothing", {"\1", "", "x"}, "", true},
      {"a Ctrl-A waits for its second key", {"a\1"}, "a", false},
  };
  for (const Typing& typing : cases) {
    SCOPED_TRACE(typing.name);
    ConsoleEscape escape;
    std::string passed;
    bool left = false;
    for (const std::string& read : typing.reads) {
      passed += escape.Filter({reinterpret_cast<const uint8_t*>(read.data()), read.size()}, &left);
    }
    EXPECT_EQ(passed, typing.passed);
    EXPECT_EQ(left, typing.left);
  }
}

TEST(RawTerminal, GivesTheTerminalBackAsItWas) {
  int master_fd = -1, slave_fd = -1;
  ASSERT_EQ(openpty(&master_fd, &slave_fd, nullptr, nullptr, nullptr), 0);
  UniqueFd master(master_fd), slave(slave_fd);
  termios before = {}, during = {}, after = {};
  ASSERT_EQ(tcgetattr(slave.get(), &before), 0);
  {
    RawTerminal moved_from = RawTerminal::Enter(slave.get()).value();
    RawTerminal raw = std::move(moved_from);
    ASSERT_EQ(tcgetattr(slave.get(), &during), 0);
    EXPECT_EQ(during.c_lflag & (ICANON | ECHO | ISIG), 0u);
  }
  ASSERT_EQ(tcgetattr(slave.get(), &after), 0);
  EXPECT_EQ(after.c_iflag, before.c_iflag);
  EXPECT_EQ(after.c_oflag, before.c_oflag);
  EXPECT_EQ(after.c_cflag, before.c_cflag);
  EXPECT_EQ(after.c_lflag, before.c_lflag);
}

TEST(RawTerminal, WhatIsNoTerminalIsRefused) {
  UniqueFd null = OpenFile("/dev/null", O_RDWR).value();
  EXPECT_FALSE(RawTerminal::Enter(null.get()).ok());
}

}  // namespace
}  // namespace cube::vmm
