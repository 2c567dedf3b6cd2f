#include "base/json_writer.h"

#include <gtest/gtest.h>

#include <limits>

namespace cube {
namespace {

TEST(JsonWriter, NestsAndSeparates) {
  JsonWriter json;
  json.BeginObject().Key("a").Int(-1).Key("b").BeginArray().Uint(2).Double(0.5).Null().EndArray();
  json.Key("c").BeginObject().EndObject().Key("d").Bool(true).EndObject();
  EXPECT_EQ(json.text(), R"({"a":-1,"b":[2,0.500,null],"c":{},"d":true})");
}

TEST(JsonWriter, EscapesAndReplacesBadBytes) {
  JsonWriter json;
  json.String("q\" b\\ n\n t\t \x01 \xc3\xa9 \xff \xed\xa0\x80");
  EXPECT_EQ(json.text(),
            "\"q\\\" b\\\\ n\\n t\\u0009 \\u0001 \xc3\xa9 \xef\xbf\xbd "
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(JsonWriter, WhatIsNotFiniteIsNull) {
  JsonWriter json;
  json.Double(std::numeric_limits<double>::infinity());
  EXPECT_EQ(json.text(), "null");
}

TEST(Utf8, AcceptsWhatTheStandardAccepts) {
  EXPECT_TRUE(IsUtf8("plain \xc2\x80 \xe0\xa0\x80 \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"));
  EXPECT_FALSE(IsUtf8("\xc0\x80"));
  EXPECT_FALSE(IsUtf8("\xe0\x80\x80"));
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));
  EXPECT_FALSE(IsUtf8("\xe2\x82"));
  EXPECT_FALSE(IsUtf8("\x80"));
}

TEST(Base64, PadsAsTheStandardSays) {
  EXPECT_EQ(Base64(""), "");
  EXPECT_EQ(Base64("f"), "Zg==");
  EXPECT_EQ(Base64("fo"), "Zm8=");
  EXPECT_EQ(Base64("foo"), "Zm9v");
  EXPECT_EQ(Base64(std::string("\x00\xff\xfe", 3)), "AP/+");
}

}  // namespace
}  // namespace cube
