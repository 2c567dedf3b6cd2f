#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "base/unique_fd.h"
#include "vmm/cli/console_log.h"
#include "vmm/cli/output_sink.h"

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

}  // namespace
}  // namespace cube::vmm
