// The filesystem service and /files with real files of this machine.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <tuple>

#include "guestkernel/agent/envd/daemon_test.h"
#include "guestkernel/agent/envd/signature.h"

namespace cube::agent::envd {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

class FilesTest : public DaemonTest {
 protected:
  explicit FilesTest(const std::string& token = "") : DaemonTest(token) {
    // Not /tmp: its file system may know no attributes of users.
    folder_ = "/var/tmp/envd-XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }
  ~FilesTest() override { fs::remove_all(folder_); }

  std::string In(const std::string& name) const { return folder_ + "/" + name; }
  void Write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(In(name)).parent_path());
    std::ofstream(In(name)) << text;
  }
  std::string Read(const std::string& name) const {
    std::ifstream in(In(name));
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static std::string Path(const std::string& path, const std::string& more = "") {
    return "{\"path\":" + json::serialize(json::string(path)) + more + "}";
  }
  std::pair<int, json::value> Call(const std::string& method, const std::string& text,
                                   const SandboxClient::Fields& fields = {}) {
    return Connect().Call("/filesystem.Filesystem/" + method, text, fields);
  }
  std::string ErrorOf(const std::string& method, const std::string& text) {
    return Connect().ErrorOf("/filesystem.Filesystem/" + method, text);
  }
  json::object Stat(const std::string& path) {
    auto [status, value] = Call("Stat", Path(path));
    EXPECT_EQ(status, 200) << path;
    return status == 200 ? value.as_object().at("entry").as_object() : json::object();
  }
  http::TestClient::Answer Request(const std::string& method, const std::string& target,
                                   const SandboxClient::Fields& fields = {},
                                   const std::string* body = nullptr) {
    http::TestClient client = ConnectHttp();
    client.SendRequest(method, target, fields, body);
    return client.ReadAnswer();
  }
  http::TestClient::Answer Upload(const std::string& query, const std::string& body,
                                  SandboxClient::Fields fields = {}) {
    fields.emplace_back("Content-Type", "application/octet-stream");
    return Request("POST", "/files?" + query, fields, &body);
  }
  static std::string Text(const json::value& value) {
    return std::string(value.as_string().data(), value.as_string().size());
  }

  std::string folder_;
};

TEST_F(FilesTest, StatTellsAllOfAFile) {
  Write("file.txt", "hello");
  chmod(In("file.txt").c_str(), 0644);
  timespec times[2] = {{1700000000, 5}, {1700000000, 123456789}};
  utimensat(AT_FDCWD, In("file.txt").c_str(), times, 0);
  if (chown(In("file.txt").c_str(), 65534, 12345) < 0) GTEST_FAIL();
  EXPECT_EQ(json::serialize(Stat(In("file.txt"))),
            R"({"name":"file.txt","type":"FILE_TYPE_FILE","path":")" + In("file.txt") +
                R"(","size":"5","mode":420,"permissions":"-rw-r--r--","owner":"nobody",)"
                R"("group":"12345","modifiedTime":"2023-11-14T22:13:20.123456789Z"})");
  json::object folder = Stat(folder_);
  EXPECT_EQ(folder["type"], "FILE_TYPE_DIRECTORY");
  EXPECT_EQ(folder["permissions"], "drwx------");
  EXPECT_EQ(Stat("/tmp")["permissions"], "dtrwxrwxrwx");
  EXPECT_EQ(Stat("/dev/null")["permissions"], "Dcrw-rw-rw-");
  EXPECT_EQ(ErrorOf("Stat", Path(In("none"))), "not_found");
  EXPECT_EQ(ErrorOf("Stat", Path(In("file.txt/below"))), "not_found");
  EXPECT_EQ(ErrorOf("Stat", R"({"path":"a\u0000b"})"), "invalid_argument");
}

TEST_F(FilesTest, LinksHaveTypeAndModeOfWhereTheyLead) {
  Write("file", "x");
  chmod(In("file").c_str(), 0600);
  fs::create_symlink("file", In("link"));
  json::object link = Stat(In("link"));
  EXPECT_EQ(link["type"], "FILE_TYPE_FILE");
  EXPECT_EQ(link["mode"], 0600);
  EXPECT_EQ(link["permissions"], "Lrwxrwxrwx");
  EXPECT_EQ(Text(link["symlinkTarget"]), fs::canonical(In("file")).string());
  fs::create_symlink("/no/where", In("broken"));
  json::object broken = Stat(In("broken"));
  EXPECT_EQ(broken["type"], "FILE_TYPE_UNSPECIFIED");
  EXPECT_EQ(broken["symlinkTarget"], "/no/where");
}

TEST_F(FilesTest, PathsAreTheUsers) {
  EXPECT_EQ(Text(Stat("~")["path"]), "/root");
  EXPECT_EQ(Text(Stat("")["path"]), "/root");
  EXPECT_EQ(Text(Stat("/usr/./lib/../bin//")["path"]), "/usr/bin");
  EXPECT_EQ(Text(Stat("/../../..")["path"]), "/");
  EXPECT_EQ(ErrorOf("Stat", Path("~nobody")), "invalid_argument");
  auto [status, value] = Call("Stat", Path("."), {{"Authorization", "Basic bm9ib2R5Og=="}});
  EXPECT_EQ(status, 404);  // nobody's home is not there
  EXPECT_EQ(Call("Stat", Path("/"), {{"Authorization", "Basic bm8tb25lOg=="}}).first, 401);
}

TEST_F(FilesTest, FoldersAreMadeMovedAndRemoved) {
  auto [status, value] =
      Call("MakeDir", Path(In("a/b/c")), {{"Authorization", "Basic bm9ib2R5Og=="}});
  ASSERT_EQ(status, 200);
  EXPECT_EQ(value.as_object()["entry"].as_object()["owner"], "nobody");
  EXPECT_EQ(Stat(In("a"))["owner"], "nobody");
  EXPECT_EQ(Stat(In("a"))["permissions"], "drwxr-xr-x");
  EXPECT_EQ(ErrorOf("MakeDir", Path(In("a/b"))), "already_exists");
  Write("file", "x");
  EXPECT_EQ(ErrorOf("MakeDir", Path(In("file"))), "invalid_argument");
  EXPECT_EQ(ErrorOf("MakeDir", Path(In("file/below"))), "invalid_argument");

  const std::string move =
      "{\"source\":\"" + In("file") + "\",\"destination\":\"" + In("new/place") + "\"}";
  std::tie(status, value) = Call("Move", move);
  ASSERT_EQ(status, 200);
  EXPECT_EQ(value.as_object()["entry"].as_object()["name"], "place");
  EXPECT_EQ(Read("new/place"), "x");
  EXPECT_EQ(ErrorOf("Move", move), "not_found");

  EXPECT_EQ(ErrorOf("Remove", Path(In("new"))), "");
  EXPECT_FALSE(fs::exists(In("new")));
  EXPECT_EQ(ErrorOf("Remove", Path(In("new"))), "");
  EXPECT_EQ(ErrorOf("Remove", Path("/")), "invalid_argument");
  EXPECT_EQ(ErrorOf("Remove", Path("/..")), "invalid_argument");
}

TEST_F(FilesTest, RemovingDoesNotFollowLinksAndReachesAnyDepth) {
  Write("kept/file", "x");
  fs::create_directories(In("tree/sub"));
  fs::create_symlink(In("kept"), In("tree/link"));
  fs::create_symlink(In("kept"), In("tree/sub/link"));
  // Deeper than a path can say, and than there are descriptors for.
  int at = open(In("tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < 3000; ++i) {
    ASSERT_EQ(mkdirat(at, "deep", 0755), 0);
    close(openat(at, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    int next = openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(at);
    at = next;
  }
  close(at);
  EXPECT_EQ(ErrorOf("Remove", Path(In("tree"))), "");
  EXPECT_FALSE(fs::exists(In("tree")));
  EXPECT_EQ(Read("kept/file"), "x");
}

TEST_F(FilesTest, ListingsAreInLexicalOrderDepthFirst) {
  for (const char* name : {"b/2", "b/10", "b/sub/deep/x", "a.txt", "c", "B", "b-/1"})
    Write(name, "x");
  fs::create_symlink(In("b"), In("link"));
  auto names = [this](const std::string& more, const std::string& of) {
    auto [status, value] = Call("ListDir", Path(of, more));
    std::string all;
    if (status != 200) return all;
    for (const json::value& each : value.as_object().at("entries").as_array()) {
      all += Text(each.as_object().at("path")).substr(of.size() + 1) + " ";
    }
    return all;
  };
  EXPECT_EQ(names("", folder_), "B a.txt b b- c link ");
  EXPECT_EQ(names(",\"depth\":2", folder_), "B a.txt b b/10 b/2 b/sub b- b-/1 c link ");
  EXPECT_EQ(names(",\"depth\":4000000000", folder_),
            "B a.txt b b/10 b/2 b/sub b/sub/deep b/sub/deep/x b- b-/1 c link ");
  EXPECT_EQ(names("", In("link")), "10 2 sub ");
  EXPECT_EQ(ErrorOf("ListDir", Path(In("c"))), "invalid_argument");
  EXPECT_EQ(ErrorOf("ListDir", Path(In("none"))), "not_found");
}

TEST_F(FilesTest, FilesGoUpAndDown) {
  std::string content;
  for (int i = 0; i < 3000000; ++i) content += static_cast<char>(i * 31 + i / 253);
  http::TestClient::Answer up =
      Upload("path=" + In("new/folder/file") + "&username=nobody", content);
  EXPECT_EQ(up.status, 200);
  EXPECT_EQ(up.body,
            R"([{"name":"file","path":")" + In("new/folder/file") + R"(","type":"file"}])");
  json::object entry = Stat(In("new/folder/file"));
  EXPECT_EQ(entry["owner"], "nobody");
  EXPECT_EQ(entry["permissions"], "-rw-r--r--");
  EXPECT_EQ(Stat(In("new"))["owner"], "nobody");
  http::TestClient::Answer down = Request("GET", "/files?path=" + In("new/folder/file"));
  EXPECT_EQ(down.fields["content-length"], "3000000");
  EXPECT_TRUE(down.body == content);
  // In place of what is there.
  EXPECT_EQ(Upload("path=" + In("new/folder/file"), "short").status, 200);
  EXPECT_EQ(Read("new/folder/file"), "short");
  EXPECT_EQ(Upload("path=" + In("new/folder/file"), "").status, 200);
  EXPECT_EQ(Request("GET", "/files?path=" + In("new/folder/file")).fields["content-length"], "0");
  // What only seems to be empty.
  EXPECT_TRUE(Request("GET", "/files?path=/proc/version").body.starts_with("Linux"));
}

TEST_F(FilesTest, WhatIsNoFileIsNotReadOrWritten) {
  auto read = [this](const std::string& query) {
    http::TestClient::Answer answer = Request("GET", "/files?" + query);
    return std::to_string(answer.status) + " " + answer.body;
  };
  EXPECT_EQ(read("path=" + In("none")),
            "404 {\"code\":404,\"message\":\"path '" + In("none") + "' does not exist\"}");
  EXPECT_EQ(read("path=" + folder_),
            "400 {\"code\":400,\"message\":\"path '" + folder_ + "' is a directory\"}");
  EXPECT_EQ(read("path=/dev/zero"),
            R"(400 {"code":400,"message":"path '/dev/zero' is not a file"})");
  EXPECT_EQ(read("path=/&username=no-one"),
            R"(401 {"code":401,"message":"invalid username: 'no-one'"})");
  ASSERT_EQ(mkfifo(In("pipe").c_str(), 0600), 0);
  EXPECT_EQ(Request("GET", "/files?path=" + In("pipe")).status, 400);
  EXPECT_NE(Upload("path=" + In("pipe"), "x").status, 200);
  EXPECT_EQ(Upload("path=" + folder_, "x").status, 400);
  EXPECT_EQ(Upload("path=/dev/null", "x").status, 400);
  Write("file", "x");
  EXPECT_EQ(Upload("path=" + In("file/below"), "x").status, 400);
  EXPECT_EQ(Upload("", "x").status, 400);
  EXPECT_EQ(Upload("path=a%00b", "x").status, 400);
  EXPECT_EQ(Request("DELETE", "/files?path=" + In("file")).status, 405);
  const std::string body = "x";
  EXPECT_EQ(
      Request("POST", "/files?path=" + In("file"), {{"Content-Type", "text/plain"}}, &body).status,
      400);
  EXPECT_EQ(Upload("path=" + In("file"), "x", {{"Content-Encoding", "br"}}).status, 400);
  EXPECT_EQ(Read("file"), "x");
}

std::string Part(const std::string& disposition, const std::string& content) {
  return "--XX\r\nContent-Disposition: form-data; " + disposition +
         "\r\nContent-Type: application/octet-stream\r\n\r\n" + content + "\r\n";
}

TEST_F(FilesTest, PartsOfAFormAreFiles) {
  const SandboxClient::Fields form = {{"Content-Type", "multipart/form-data; boundary=XX"}};
  // A content with all that is nearly a boundary.
  const std::string content =
      "\r\n--X\r\n--\r--XX\r\r\n-\r\n--Xx" + std::string(100000, '\n') + "\r";
  std::string body =
      "preamble\r\n" + Part("name=\"file\"; filename=\"" + In("p/one") + "\"", content) +
      Part("name=\"other\"; filename=\"" + In("p/no") + "\"", "no") +
      Part("name=\"file\"; filename=\"" + In("p/%22two;x") + "\"", "") + "--XX--\r\nend";
  http::TestClient::Answer answer = Request("POST", "/files", form, &body);
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(json::parse(answer.body).as_array().size(), 2u);
  EXPECT_TRUE(Read("p/one") == content);
  EXPECT_TRUE(fs::exists(In("p/\"two;x")));
  EXPECT_FALSE(fs::exists(In("p/no")));
  // Byte by byte, in chunks.
  http::TestClient client = ConnectHttp();
  client.Send(
      "POST /files HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=\"XX\"\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  const std::string small =
      Part("name=file; filename=\"" + In("p/bytes") + "\"", "\r\n--X\r\n--XY") + "--XX--\r\n";
  for (char c : small) client.Send(std::string("1\r\n") + c + "\r\n");
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().status, 200);
  EXPECT_EQ(Read("p/bytes"), "\r\n--X\r\n--XY");
  // A plain field is a file if the query says where.
  body = "--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ntext\r\n--XX--\r\n";
  EXPECT_EQ(Request("POST", "/files?path=" + In("p/plain"), form, &body).status, 200);
  EXPECT_EQ(Read("p/plain"), "text");
  EXPECT_EQ(Request("POST", "/files", form, &body).status, 400);
}

TEST_F(FilesTest, BrokenFormsAreErrors) {
  const SandboxClient::Fields form = {{"Content-Type", "multipart/form-data; boundary=XX"}};
  auto status = [&](const std::string& body) {
    return Request("POST", "/files", form, &body).status;
  };
  const std::string part = Part("name=\"file\"; filename=\"" + In("f") + "\"", "x");
  EXPECT_EQ(status(part + part + "--XX--"), 400);  // the same path
  EXPECT_EQ(status(part), 400);
  EXPECT_EQ(status("--XX"), 400);
  EXPECT_EQ(status("--XXgarbage"), 400);
  EXPECT_EQ(status("--XX\r\n" + std::string(20000, 'h')), 400);
  EXPECT_EQ(status(""), 400);
  const std::string body = part + "--XX--";
  EXPECT_EQ(Request("POST", "/files", {{"Content-Type", "multipart/form-data"}}, &body).status,
            400);
}

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

TEST_F(FilesTest, CompressedBodiesAreUnpacked) {
  const SandboxClient::Fields gzip = {{"Content-Encoding", "gzip"}};
  std::string text;
  for (int i = 0; i < 400000; ++i) text += std::to_string(i);
  EXPECT_EQ(Upload("path=" + In("f"), Gzip(text), gzip).status, 200);
  EXPECT_TRUE(Read("f") == text);
  EXPECT_EQ(Upload("path=" + In("f"), Gzip("a") + Gzip("") + Gzip("b"), gzip).status, 200);
  EXPECT_EQ(Read("f"), "ab");
  EXPECT_EQ(Upload("path=" + In("f"), Gzip(text).substr(0, 1000), gzip).status, 400);
  EXPECT_EQ(Upload("path=" + In("f"), "not gzip", gzip).status, 400);
  EXPECT_EQ(Upload("path=" + In("f"), "", gzip).status, 400);
}

TEST_F(FilesTest, MetadataStaysWithItsFileUntilTheNextUpload) {
  http::TestClient::Answer up =
      Upload("path=" + In("f"), "x", {{"X-Metadata-Author", "me"}, {"X-Metadata-b", "two words"}});
  ASSERT_EQ(up.status, 200) << up.body;
  EXPECT_EQ(up.body, R"([{"name":"f","path":")" + In("f") +
                         R"(","type":"file","metadata":{"author":"me","b":"two words"}}])");
  EXPECT_EQ(json::serialize(Stat(In("f"))["metadata"]), R"({"author":"me","b":"two words"})");
  char value[16] = {};
  EXPECT_EQ(getxattr(In("f").c_str(), "user.e2b.author", value, sizeof value), 2);
  const std::string move = "{\"source\":\"" + In("f") + "\",\"destination\":\"" + In("g") + "\"}";
  EXPECT_EQ(ErrorOf("Move", move), "");
  EXPECT_TRUE(Stat(In("g")).contains("metadata"));
  EXPECT_EQ(Upload("path=" + In("g"), "x", {{"X-Metadata-C", "3"}}).status, 200);
  EXPECT_EQ(json::serialize(Stat(In("g"))["metadata"]), R"({"c":"3"})");
  EXPECT_EQ(Upload("path=" + In("g"), "x").status, 200);
  EXPECT_FALSE(Stat(In("g")).contains("metadata"));
  EXPECT_EQ(Upload("path=" + In("g"), "x", {{"X-Metadata-" + std::string(247, 'k'), "v"}}).status,
            400);
  EXPECT_EQ(Upload("path=" + In("g"), "x", {{"X-Metadata-k", std::string(4096, 'v')}}).status, 400);
  EXPECT_EQ(Upload("path=" + In("g"), "x", {{"X-Metadata-k", "\xc3\xa9"}}).status, 400);
}

TEST_F(FilesTest, FilesAreJoined) {
  Write("a", "first ");
  Write("b", std::string(9 << 20, 'b'));
  auto join = [this](const std::string& sources, const std::string& destination) {
    const std::string body =
        "{\"source_paths\":[" + sources + "],\"destination\":\"" + destination + "\"}";
    return Request("POST", "/files/compose", {{"Content-Type", "application/json"}}, &body);
  };
  const std::string both = "\"" + In("a") + "\",\"" + In("b") + "\"";
  http::TestClient::Answer answer = join(both, In("new/c"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, R"({"name":"c","path":")" + In("new/c") + R"(","type":"file"})");
  EXPECT_TRUE(Read("new/c") == "first " + std::string(9 << 20, 'b'));
  EXPECT_EQ(join(both, In("a")).status, 400);
  EXPECT_EQ(join("\"" + In("none") + "\"", In("c")).status, 404);
  EXPECT_EQ(join("\"" + folder_ + "\"", In("c")).status, 400);
  EXPECT_EQ(join("", In("c")).status, 400);
  EXPECT_EQ(Read("a"), "first ");
}

// Reads events of a watch until one of them is `last`: "CREATE name" and so on.
std::set<std::string> Events(SandboxClient* client, const std::string& last) {
  std::set<std::string> seen;
  while (!seen.contains(last)) {
    std::optional<json::value> message = client->Next();
    if (!message) break;
    const json::value* event = message->as_object().if_contains("filesystem");
    if (event == nullptr) continue;
    const json::object& fields = event->as_object();
    seen.insert(std::string(fields.at("type").as_string()).substr(11) + " " +
                std::string(fields.at("name").as_string()));
  }
  return seen;
}

TEST_F(FilesTest, WatchesTellWhatHappens) {
  SandboxClient client = Connect();
  ASSERT_TRUE(client.Open("/filesystem.Filesystem/WatchDir", Path(folder_)));
  EXPECT_EQ(json::serialize(*client.Next()), R"({"start":{}})");
  Write("file", "x");
  EXPECT_EQ(Events(&client, "WRITE file"), (std::set<std::string>{"CREATE file", "WRITE file"}));
  chmod(In("file").c_str(), 0600);
  EXPECT_EQ(Events(&client, "CHMOD file"), std::set<std::string>{"CHMOD file"});
  fs::rename(In("file"), In("next"));
  EXPECT_EQ(Events(&client, "CREATE next"), (std::set<std::string>{"RENAME file", "CREATE next"}));
  fs::create_directory(In("sub"));
  Write("sub/unseen", "x");
  fs::remove(In("next"));
  EXPECT_EQ(Events(&client, "REMOVE next"), (std::set<std::string>{"CREATE sub", "REMOVE next"}));
}

TEST_F(FilesTest, RecursiveWatchesFollowNewFoldersAtOnce) {
  fs::create_directories(In("old/deep"));
  SandboxClient client = Connect();
  ASSERT_TRUE(
      client.Open("/filesystem.Filesystem/WatchDir", Path(folder_, R"(,"recursive":true)")));
  client.Next();
  Write("old/deep/file", "x");
  EXPECT_TRUE(Events(&client, "WRITE old/deep/file").contains("CREATE old/deep/file"));
  // One request after the other: the second's file is seen being written.
  EXPECT_EQ(ErrorOf("MakeDir", Path(In("new/nested"))), "");
  EXPECT_EQ(Upload("path=" + In("new/nested/file"), "x").status, 200);
  std::set<std::string> seen = Events(&client, "WRITE new/nested/file");
  EXPECT_TRUE(seen.contains("CREATE new"));
  EXPECT_TRUE(seen.contains("CREATE new/nested"));
  EXPECT_TRUE(seen.contains("CREATE new/nested/file"));
  EXPECT_EQ(Upload("path=" + In("by/upload/file"), "x").status, 200);
  EXPECT_TRUE(Events(&client, "WRITE by/upload/file").contains("CREATE by/upload"));
  // Made elsewhere and moved here, and moved within.
  const std::string elsewhere = folder_ + "-elsewhere";
  fs::create_directories(elsewhere + "/in/it");
  fs::rename(elsewhere, In("moved"));
  EXPECT_TRUE(Events(&client, "CREATE moved/in/it").contains("CREATE moved"));
  fs::rename(In("moved"), In("again"));
  Events(&client, "CREATE again/in/it");
  Write("again/in/it/file", "x");
  EXPECT_TRUE(Events(&client, "WRITE again/in/it/file").contains("CREATE again/in/it/file"));
  fs::remove_all(In("again"));
  EXPECT_TRUE(Events(&client, "REMOVE again").contains("REMOVE again/in/it/file"));
}

TEST_F(FilesTest, WatchesHaveEntriesOnRequestAndRefuseWhatIsNoFolder) {
  SandboxClient client = Connect();
  ASSERT_TRUE(
      client.Open("/filesystem.Filesystem/WatchDir", Path(folder_, R"(,"include_entry":true)")));
  client.Next();
  Write("file", "x");
  EXPECT_EQ(client.Next()->as_object()["filesystem"].as_object()["entry"].as_object()["name"],
            "file");
  auto error = [this](const std::string& path) {
    SandboxClient other = Connect();
    EXPECT_TRUE(other.Open("/filesystem.Filesystem/WatchDir", Path(path)));
    EXPECT_FALSE(other.Next());
    return other.error().substr(0, other.error().find(':'));
  };
  EXPECT_EQ(error(In("none")), "not_found");
  EXPECT_EQ(error(In("file")), "invalid_argument");
}

TEST_F(FilesTest, EventsCanBeAskedForAsWell) {
  auto [status, value] = Call("CreateWatcher", Path(folder_, R"(,"recursive":true)"));
  ASSERT_EQ(status, 200);
  const std::string id =
      json::serialize(json::object{{"watcher_id", value.as_object().at("watcherId")}});
  Write("sub/file", "x");
  std::tie(status, value) = Call("GetWatcherEvents", id);
  ASSERT_EQ(status, 200);
  std::set<std::string> names;
  for (const json::value& each : value.as_object()["events"].as_array()) {
    names.insert(Text(each.as_object().at("name")));
  }
  EXPECT_EQ(names, (std::set<std::string>{"sub", "sub/file"}));
  EXPECT_EQ(json::serialize(Call("GetWatcherEvents", id).second), R"({"events":[]})");
  EXPECT_EQ(ErrorOf("RemoveWatcher", id), "");
  EXPECT_EQ(ErrorOf("RemoveWatcher", id), "not_found");
  EXPECT_EQ(ErrorOf("GetWatcherEvents", id), "not_found");
}

class SecureTest : public FilesTest {
 protected:
  SecureTest() : FilesTest("the token") {}
};

TEST_F(SecureTest, TheTokenIsNeededForAllButHealth) {
  EXPECT_EQ(Request("GET", "/health").status, 204);
  http::TestClient::Answer refused = Request("GET", "/envs");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(json::parse(refused.body).as_object()["code"], 401);
  EXPECT_EQ(Request("GET", "/envs", {{"X-Access-Token", "the Token"}}).status, 401);
  EXPECT_EQ(Request("GET", "/envs", {{"X-Access-Token", "the token"}}).body,
            R"({"E2B_SANDBOX":"true","E2B_SANDBOX_ID":"the-sandbox","GLOBAL":"of the sandbox"})");
  EXPECT_EQ(ErrorOf("Stat", Path("/")), "status 401");
  EXPECT_EQ(Call("Stat", Path("/"), {{"X-Access-Token", "the token"}}).first, 200);
  EXPECT_EQ(Request("POST", "/files/compose").status, 401);
}

TEST_F(SecureTest, SignaturesAreForOneFileOneUserAndOneOperation) {
  Write("f", "content");
  const std::string path = In("f");
  auto get = [this](const std::string& query) {
    http::TestClient::Answer answer = Request("GET", "/files?" + query);
    return answer.status == 200 ? answer.body
                                : Text(json::parse(answer.body).as_object()["message"]);
  };
  auto encoded = [](std::string signature) {
    std::string out;
    for (char c : signature) {
      if (c == '+') {
        out += "%2B";
      } else {
        out += c;
      }
    }
    return out;
  };
  auto sign = [&](const std::string& operation, const std::string& user, const std::string* until) {
    return encoded(Sign(path, operation, user, "the token", until));
  };
  EXPECT_EQ(get("path=" + path), "missing signature query parameter");
  EXPECT_EQ(get("path=" + path + "&signature=" + sign("read", "", nullptr)), "content");
  EXPECT_EQ(get("path=" + path + "&username=root&signature=" + sign("read", "root", nullptr)),
            "content");
  EXPECT_EQ(get("path=" + path + "&username=root&signature=" + sign("read", "", nullptr)),
            "invalid signature");
  EXPECT_EQ(get("path=" + path + "&signature=" + sign("write", "", nullptr)), "invalid signature");
  EXPECT_EQ(get("path=/etc/passwd&signature=" + sign("read", "", nullptr)), "invalid signature");
  const std::string later = "99999999999";
  const std::string past = "1000000000";
  EXPECT_EQ(get("path=" + path + "&signature_expiration=" + later +
                "&signature=" + sign("read", "", &later)),
            "content");
  EXPECT_EQ(get("path=" + path + "&signature_expiration=" + past +
                "&signature=" + sign("read", "", &past)),
            "signature is already expired");
  EXPECT_EQ(get("path=" + path + "&signature_expiration=" + later +
                "&signature=" + sign("read", "", &past)),
            "invalid signature");
  EXPECT_EQ(Upload("path=" + path + "&signature=" + sign("write", "", nullptr), "new").status, 200);
  EXPECT_EQ(Upload("path=" + path + "&signature=" + sign("read", "", nullptr), "newer").status,
            401);
  EXPECT_EQ(Upload("path=" + path, "newest", {{"X-Access-Token", "the token"}}).status, 200);
  EXPECT_EQ(Read("f"), "newest");
}

TEST(Signature, IsThatOfTheProtocol) {
  // sha256sum and base64 of "/f:read:user:t" and "/f:read:user:t:100".
  const std::string expiration = "100";
  EXPECT_EQ(Sign("/f", "read", "user", "t", nullptr),
            "v1_EDHstefYANmPO3CGZYKvlePAaWGx0GKkCX1IY0NupRo");
  EXPECT_EQ(Sign("/f", "read", "user", "t", &expiration),
            "v1_ib7VFg6jKrduT6bMIlNoyIc4y9LqTRJeNONh9UvytVU");
}

TEST_F(FilesTest, InitSetsWhatHoldsForAll) {
  auto init = [this](const std::string& body) {
    return Request("POST", "/init", {{"Content-Type", "application/json"}}, &body).status;
  };
  EXPECT_EQ(
      init(
          R"({"envVars":{"NEW":"1","GLOBAL":"2"},"defaultUser":"nobody","defaultWorkdir":"/usr","hyperloopIP":"x"})"),
      204);
  Transcript all = Run("echo $NEW $GLOBAL; id -un; pwd");
  EXPECT_EQ(all.out, "1 2\nnobody\n/usr\n");
  EXPECT_EQ(Text(Stat("lib")["path"]), "/usr/lib");
  EXPECT_EQ(init("{"), 400);
  EXPECT_EQ(init(R"({"timestamp":"yesterday"})"), 400);
  EXPECT_EQ(init(R"({"envVars":{"A":1}})"), 400);
  EXPECT_EQ(init(R"({"accessToken":"first"})"), 204);
  EXPECT_EQ(init(R"({"accessToken":"second"})"), 401);
  EXPECT_EQ(ErrorOf("Stat", Path("/")), "status 401");
}

TEST_F(FilesTest, TheRestOfTheRoutes) {
  EXPECT_EQ(Request("GET", "/none").status, 404);
  http::TestClient::Answer preflight = Request(
      "OPTIONS", "/files", {{"Origin", "http://x"}, {"Access-Control-Request-Method", "POST"}});
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.fields["access-control-allow-origin"], "*");
  EXPECT_EQ(Request("GET", "/health").fields["x-envd-version"], "0.6.13");
  json::object metrics = json::parse(Request("GET", "/metrics").body).as_object();
  EXPECT_EQ(metrics["cpu_count"].to_number<long>(), sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_GT(metrics["mem_total"].to_number<uint64_t>(), 1u << 20);
  EXPECT_GT(metrics["disk_total"].to_number<uint64_t>(),
            metrics["disk_used"].to_number<uint64_t>());
}

}  // namespace
}  // namespace cube::agent::envd
