// The document of routes and the router's table say the same.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <set>
#include <string>

#include "api/control_plane.h"
#include "api/openapi_text.h"

namespace cube::api {
namespace {

namespace json = boost::json;

class OpenApiTest : public ::testing::Test {
 protected:
  OpenApiTest() : router_(nullptr), plane_(ControlPlane::Parts()) {
    plane_.AddTo(&router_);
    document_ = json::parse(kOpenApiText).as_object();
    for (const auto& [path, item] : document_["paths"].as_object()) {
      for (const auto& [method, operation] : item.as_object()) {
        std::string name(method);
        for (char& c : name) c = static_cast<char>(toupper(c));
        operations_[name + " " + std::string(path)] = &operation.as_object();
      }
    }
  }

  // All references within a value.
  static void Collect(const json::value& value, std::set<std::string>* references) {
    if (const json::object* object = value.if_object()) {
      for (const auto& [key, inner] : *object) {
        if (key == "$ref") references->emplace(inner.as_string());
        Collect(inner, references);
      }
    } else if (const json::array* list = value.if_array()) {
      for (const json::value& inner : *list) Collect(inner, references);
    }
  }

  Router router_;
  ControlPlane plane_;
  json::object document_;
  std::map<std::string, const json::object*> operations_;
};

TEST_F(OpenApiTest, EachRouteIsInTheDocumentAndTheReverse) {
  std::set<std::string> routes, documented;
  for (const Router::Route& route : router_.routes()) {
    EXPECT_TRUE(routes.insert(route.method + " " + route.pattern).second)
        << route.method << " " << route.pattern << " is there twice";
  }
  for (const auto& [name, operation] : operations_) documented.insert(name);
  EXPECT_EQ(routes, documented);
}

TEST_F(OpenApiTest, WhoMayIsTheSame) {
  for (const Router::Route& route : router_.routes()) {
    const json::object& operation = *operations_.at(route.method + " " + route.pattern);
    const json::value* security = operation.if_contains("security");
    switch (route.access) {
      case Access::kKey:
        EXPECT_EQ(security, nullptr) << route.pattern;
        break;
      case Access::kPublic:
        ASSERT_NE(security, nullptr) << route.pattern;
        EXPECT_TRUE(security->as_array().empty()) << route.pattern;
        break;
      case Access::kToken:
        ASSERT_NE(security, nullptr) << route.pattern;
        EXPECT_EQ(security->as_array().size(), 1U) << route.pattern;
        break;
    }
  }
}

TEST_F(OpenApiTest, WhatIsNotDoneIsTheSame) {
  for (const Router::Route& route : router_.routes()) {
    const json::object& operation = *operations_.at(route.method + " " + route.pattern);
    const json::value* reason = operation.if_contains("x-unsupported");
    EXPECT_EQ(reason == nullptr ? "" : std::string(reason->as_string()), route.unsupported);
    EXPECT_EQ(operation.at("responses").as_object().contains("501"), reason != nullptr);
  }
}

TEST_F(OpenApiTest, VariablesOfPathsAreParameters) {
  std::set<std::string> ids;
  for (const auto& [name, operation] : operations_) {
    EXPECT_TRUE(ids.insert(std::string(operation->at("operationId").as_string())).second) << name;
    std::set<std::string> in_path, declared;
    auto pieces = SplitPath(name.substr(name.find(' ') + 1));
    ASSERT_TRUE(pieces.has_value()) << name;
    for (const std::string& piece : *pieces) {
      if (piece.starts_with('{')) in_path.insert(piece.substr(1, piece.size() - 2));
    }
    if (const json::value* parameters = operation->if_contains("parameters")) {
      for (const json::value& parameter : parameters->as_array()) {
        const json::object& about = parameter.as_object();
        if (about.at("in") == "path") declared.emplace(about.at("name").as_string());
      }
    }
    EXPECT_EQ(in_path, declared) << name;
  }
}

TEST_F(OpenApiTest, ReferencesLeadSomewhere) {
  std::set<std::string> references;
  Collect(document_, &references);
  const json::object& components = document_["components"].as_object();
  for (const std::string& reference : references) {
    size_t slash = reference.rfind('/');
    ASSERT_TRUE(reference.starts_with("#/components/")) << reference;
    std::string group = reference.substr(13, slash - 13), name = reference.substr(slash + 1);
    EXPECT_TRUE(components.at(group).as_object().contains(name)) << reference;
  }
  for (const auto& [name, schema] : components.at("schemas").as_object()) {
    EXPECT_TRUE(references.contains("#/components/schemas/" + std::string(name))) << name;
  }
}

}  // namespace
}  // namespace cube::api
