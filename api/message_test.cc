#include "api/message.h"

#include <gtest/gtest.h>

#include "api/date_text.h"
#include "api/fields.h"
#include "api/sandbox_address.h"
#include "api/url.h"

namespace cube::api {
namespace {

TEST(Url, EscapesAreReadOnceAndWrongOnesRefused) {
  EXPECT_EQ(PercentDecode("a%20b+c", true), "a b c");
  EXPECT_EQ(PercentDecode("a%2520+", false), "a%20+");
  for (const char* wrong : {"%", "%4", "%zz", "a%", "%%41"}) {
    EXPECT_FALSE(PercentDecode(wrong, false)) << wrong;
  }
  EXPECT_EQ(PercentDecode("%41", false), "A");
  EXPECT_EQ(PercentEncode("a b/%\xc3"), "a%20b%2f%25%c3");
  auto fields = ParseQuery("a=1&&b&c=%26=x&a=2");
  ASSERT_TRUE(fields);
  EXPECT_EQ(*fields, (QueryFields{{"a", "1"}, {"b", ""}, {"c", "&=x"}, {"a", "2"}}));
  std::string many;
  for (int i = 0; i < 101; ++i) many += "a&";
  EXPECT_FALSE(ParseQuery(many));
}

TEST(Url, PathsAreSplitBeforeTheirEscapesAreRead) {
  EXPECT_EQ(SplitPath("/a/b%2Fc/"), (std::vector<std::string>{"a", "b/c", ""}));
  EXPECT_EQ(SplitPath("/"), (std::vector<std::string>{""}));
  EXPECT_FALSE(SplitPath(""));
  EXPECT_FALSE(SplitPath("a"));
  EXPECT_FALSE(SplitPath("/%00"));
  EXPECT_FALSE(SplitPath("/%"));
}

TEST(Url, Base64ForUrls) {
  for (std::string bytes : {"", "a", "ab", "abc", "\xff\xfe\xfd\xfc"}) {
    EXPECT_EQ(DecodeBase64Url(Base64Url(bytes)), bytes);
  }
  EXPECT_FALSE(DecodeBase64Url("a+b/"));
  EXPECT_FALSE(DecodeBase64Url(std::string("a\0", 2)));
}

TEST(DateText, ComesBackAsItWas) {
  EXPECT_EQ(DateText(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(DateText(1'767'323'045'678), "2026-01-02T03:04:05.678Z");
  for (int64_t ms : {int64_t{-1}, int64_t{1'767'323'045'678}, int64_t{951'782'400'000}}) {
    EXPECT_EQ(ParseDate(DateText(ms)), ms);
  }
  EXPECT_EQ(ParseDate("2026-01-02T05:04:05+02:00"), 1'767'323'045'000);
  EXPECT_EQ(ParseDate("2026-01-02T03:04:05.678999Z"), 1'767'323'045'678);
  for (const char* wrong : {"", "2026", "2026-13-02T03:04:05Z", "2026-01-02T03:04:05", "x",
                            "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05Zx"}) {
    EXPECT_FALSE(ParseDate(wrong)) << wrong;
  }
}

TEST(Fields, WrongTypesAndRangesAreNamed) {
  auto read = [](const std::string& body) {
    auto fields = Fields::Parse(body);
    if (!fields.ok()) return fields.refusal().message;
    std::optional<std::string> text;
    std::optional<bool> flag;
    std::optional<int64_t> number;
    std::optional<std::vector<std::string>> list;
    std::map<std::string, std::string> map;
    fields->Text("text", &text, 5);
    fields->Flag("flag", &flag);
    fields->Whole("number", 1, 10, &number);
    fields->Texts("list", &list, 2);
    fields->TextMap("map", &map);
    if (auto inner = fields->Object("inner")) inner->Flag("flag", &flag);
    for (Fields& each : fields->Objects("all", 2)) each.Whole("n", 0, 1, &number);
    auto checked = fields->Check();
    return checked.ok() ? std::string("good") : checked.refusal().message;
  };
  EXPECT_EQ(read(""), "good");
  EXPECT_EQ(read(R"({"text":null,"other":[1]})"), "good");
  EXPECT_EQ(read(R"({"text":1})"), "\"text\" is not a string");
  EXPECT_EQ(read(R"({"text":"123456"})"), "\"text\" has 6 bytes of at most 5");
  EXPECT_EQ(read(R"({"text":"\u0000"})"), "\"text\" has a zero byte");
  EXPECT_EQ(read(R"({"flag":"true"})"), "\"flag\" is not true or false");
  for (const char* number : {"0", "11", "1.5", "\"1\"", "1e99", "-1", "true"}) {
    EXPECT_EQ(read(Format("{\"number\":%s}", number)),
              "\"number\" is not a whole number from 1 to 10")
        << number;
  }
  EXPECT_EQ(read(R"({"list":["a","b","c"]})"), "\"list\" is not a list of at most 2 strings");
  EXPECT_EQ(read(R"({"list":[1]})"), "\"list\" is not a list of strings");
  EXPECT_EQ(read(R"({"map":{"a":1}})"), "\"map.a\" is not a string");
  EXPECT_EQ(read(R"({"inner":{"flag":0}})"), "\"inner.flag\" is not true or false");
  EXPECT_EQ(read(R"({"inner":[]})"), "\"inner\" is not an object");
  EXPECT_EQ(read(R"({"all":[{},{"n":2}]})"), "\"all[1].n\" is not a whole number from 0 to 1");
  EXPECT_EQ(read("[]"), "the body is not a JSON object");
  EXPECT_NE(read("{\"a\":\"\xff\"}").find("the body is not JSON"), std::string::npos);
  std::string deep(1000, '[');
  EXPECT_NE(read("{\"a\":" + deep).find("the body is not JSON"), std::string::npos);
}

Addressee Of(std::initializer_list<std::pair<std::string, std::string>> fields) {
  Headers headers;
  for (const auto& [name, value] : fields) headers.Add(name, value);
  return AddresseeOf(headers);
}

TEST(SandboxAddress, HostsGoBeforeFields) {
  Addressee to = Of({{"HOST", "3000-Abc12.x.test:8080"}, {"E2b-Sandbox-Id", "other"}});
  ASSERT_TRUE(to.sandbox);
  EXPECT_EQ(to.sandbox->sandbox, "abc12");
  EXPECT_EQ(to.sandbox->port, 3000);
  to = Of({{"host", "49983-abc-client.x.test"}});
  ASSERT_TRUE(to.sandbox);
  EXPECT_EQ(to.sandbox->sandbox, "abc");
  to = Of({{"host", "127.0.0.1:3000"}, {"e2b-sandbox-id", "abc"}, {"e2b-sandbox-port", "80"}});
  ASSERT_TRUE(to.sandbox);
  EXPECT_EQ(to.sandbox->port, 80);
  for (const char* plain : {"localhost", "api.x.test", "10-20", "x-1.test", "[::1]:80"}) {
    to = Of({{"host", plain}});
    EXPECT_FALSE(to.sandbox) << plain;
    EXPECT_EQ(to.wrong, "") << plain;
  }
  for (const char* wrong : {"0-abc.x.test", "65536-abc.x.test", "80-.x.test", "80-a_b.x.test"}) {
    EXPECT_NE(Of({{"host", wrong}}).wrong, "") << wrong;
  }
  EXPECT_NE(Of({{"e2b-sandbox-id", "abc"}}).wrong, "");
}

TEST(SandboxAddress, LocalNames) {
  for (const char* local : {"localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "::1"}) {
    EXPECT_TRUE(IsLocalName(local)) << local;
  }
  for (const char* other : {"", "localhost.evil", "10.0.0.1", "::2", "127.0.0.1.evil"}) {
    EXPECT_FALSE(IsLocalName(other)) << other;
  }
  EXPECT_EQ(HostName("[::1]:80"), "::1");
  EXPECT_EQ(HostName("a:80"), "a");
}

}  // namespace
}  // namespace cube::api
