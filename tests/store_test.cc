// Snapshots in the page store: put in, restored at once and as their memory is touched.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/counter_sandbox.h"
#include "tests/process.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

class StoreTest : public SandboxTest {
 protected:
  void SetUp() override {
    SandboxTest::SetUp();
    fs::remove_all(home_ + "/store");
  }
  // Puts a snapshot in: the folder to restore from.
  std::string Add(const std::string& path) {
    Finished added = Ask({"store", "add", path});
    EXPECT_EQ(added.status, 0) << added.err;
    return added.out.substr(0, added.out.find('\n'));
  }
  // A snapshot of a counter that has counted to one, and its checksum.
  std::string TakeOne(const std::string& name, bool diff) {
    Process counter(Counter());
    std::string sum = NextAnswer(&counter).substr(2);
    std::vector<std::string> words = {"snapshot", Socket(), work_ + "/" + name};
    if (diff) words.push_back("--diff");
    Finished taken = Ask(words);
    EXPECT_EQ(taken.status, 0) << taken.err;
    EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
    counter.Finish();
    return sum;
  }
};

TEST_F(StoreTest, ColdSnapshotsGoOnEitherWay) {
  std::string sum = TakeOne("one", true);
  std::string cold = Add(work_ + "/one");
  // What it was made of is not needed.
  fs::remove_all(work_ + "/one");
  fs::rename(template_, template_ + ".away");
  std::string id = fs::path(cold).filename();
  for (const char* how : {"--lazy", "--eager"}) {
    SCOPED_TRACE(how);
    Process restored(Command({"restore", id, how}));
    EXPECT_EQ(NextAnswer(&restored), "2 " + sum);
    EXPECT_EQ(NextAnswer(&restored), "3 " + sum);
    EXPECT_EQ(restored.Finish().status, 0);
  }
  fs::rename(template_ + ".away", template_);
  EXPECT_EQ(Ask({"store", "verify"}).status, 0);
  EXPECT_EQ(Ask({"store", "rm", id}).status, 0);
  EXPECT_NE(Ask({"store", "gc", "--json"}).out.find("\"packs_deleted\":1"), std::string::npos);
  Finished stats = Ask({"store", "stats", "--json"});
  EXPECT_NE(stats.out.find("\"chunks\":0"), std::string::npos) << stats.out;
  Finished gone = RunProcess(Command({"restore", id, "--lazy"}));
  EXPECT_EQ(gone.status, 125);
  EXPECT_NE(gone.err.find("manifest.json: No such file"), std::string::npos) << gone.err;
}

TEST_F(StoreTest, ALazilyRestoredMachineIsLikeAnyOther) {
  std::string sum = TakeOne("one", false);
  std::string cold = Add(work_ + "/one");
  Process lazy(Command({"restore", cold, "--lazy"}));
  EXPECT_EQ(NextAnswer(&lazy), "2 " + sum);
  // What it has loaded is not what it has written: the diff holds that alone.
  Finished diff = Ask({"snapshot", Socket(), work_ + "/diff", "--diff"});
  ASSERT_EQ(diff.status, 0) << diff.err;
  EXPECT_LT(fs::file_size(work_ + "/diff/memory"), 3000000u);
  EXPECT_EQ(NextAnswer(&lazy), "3 " + sum);
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  lazy.Finish();

  for (const char* how : {"--lazy", "--eager"}) {
    Process restored(Command({"restore", work_ + "/diff", how}));
    EXPECT_EQ(NextAnswer(&restored), "3 " + sum) << how;
    EXPECT_EQ(restored.Finish().status, 0);
  }
  // Back to where it came from, to its own diff, and to where it came from again, while much of it
  // has not been loaded.
  Process again(Command({"restore", cold, "--lazy"}));
  EXPECT_EQ(NextAnswer(&again), "2 " + sum);
  for (const auto& [to, answer] : std::vector<std::pair<std::string, std::string>>{
           {cold, "2 "}, {work_ + "/diff", "3 "}, {cold, "2 "}}) {
    Finished back = Ask({"rollback", Socket(), to});
    ASSERT_EQ(back.status, 0) << back.err;
    EXPECT_EQ(NextAnswer(&again), answer + sum);
  }
  Finished full = Ask({"snapshot", Socket(), work_ + "/full"});
  ASSERT_EQ(full.status, 0) << full.err;
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  again.Finish();
  Process restored(Command({"restore", work_ + "/full"}));
  EXPECT_EQ(NextAnswer(&restored), "3 " + sum);
  EXPECT_EQ(restored.Finish().status, 0);
}

TEST_F(StoreTest, ADamagedChunkStopsTheGuestInOneLine) {
  TakeOne("one", false);
  std::string cold = Add(work_ + "/one");
  std::string pack;
  for (const auto& entry : fs::directory_iterator(home_ + "/store/packs")) {
    pack = fs::canonical(entry.path()).string();
  }
  {
    // All chunks but the index, which says where they are.
    std::fstream file(pack, std::ios::in | std::ios::out | std::ios::binary);
    for (uint64_t at = 20; at + 100000 < fs::file_size(pack); at += 256) {
      file.seekp(static_cast<std::streamoff>(at));
      file.put('x').put('y');
    }
  }
  for (const char* how : {"--lazy", "--eager"}) {
    Finished run = RunProcess(Command({"restore", cold, how, "--timeout", "60"}));
    EXPECT_EQ(run.status, 125) << how;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_NE(run.err.find(pack + ": chunk "), std::string::npos) << run.err;
    EXPECT_NE(run.err.find(" is damaged"), std::string::npos) << run.err;
  }
  EXPECT_TRUE(fs::is_empty(home_ + "/run"));
  Finished verified = Ask({"store", "verify"});
  EXPECT_EQ(verified.status, 1);
  EXPECT_NE(verified.out.find(" is damaged"), std::string::npos);
}

TEST_F(StoreTest, AChainOfTwelveIsFlattened) {
  std::string from = template_;
  std::string sum;
  for (int depth = 0; depth < 12; ++depth) {
    SCOPED_TRACE(depth);
    Process counter(depth == 0 ? Counter() : Command({"restore", from}));
    std::string answer = NextAnswer(&counter);
    EXPECT_EQ(answer.substr(0, answer.find(' ')), std::to_string(depth + 1));
    if (depth == 0) sum = answer.substr(2);
    from = work_ + "/" + std::to_string(depth);
    Finished taken = Ask({"snapshot", Socket(), from, "--diff"});
    ASSERT_EQ(taken.status, 0) << taken.err;
    EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
    counter.Finish();
  }
  Finished flattened = Ask({"flatten", from, work_ + "/flat"});
  ASSERT_EQ(flattened.status, 0) << flattened.err;
  EXPECT_NE(Ask({"flatten", from, work_ + "/flat"}).err.find("exists already"), std::string::npos);
  // The page store sees the same bytes in both.
  Add(from);
  Finished same = Ask({"store", "add", work_ + "/flat", "--json"});
  EXPECT_NE(same.out.find("\"new_chunks\":0,"), std::string::npos) << same.out;
  for (int depth = 0; depth < 12; ++depth) fs::remove_all(work_ + "/" + std::to_string(depth));
  Process restored(Command({"restore", work_ + "/flat"}));
  EXPECT_EQ(NextAnswer(&restored), "13 " + sum);
  EXPECT_EQ(restored.Finish().status, 0);
}

}  // namespace
}  // namespace cube::testing
