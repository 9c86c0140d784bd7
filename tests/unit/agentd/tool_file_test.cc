#include "agentd/tool_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "agentd/policy_analysis.h"
#include "agentd/policy_diff.h"
#include "agentd/policy_text.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
const PolicyContext kContext{"/workspace", "/home/agent"};

const std::string kRule =
    "[[rule]]\nid = \"r\"\nwhy = \"w\"\nallow = [\"exec\"]\ntools = [\"t\"]\naccept = "
    "[\"operator\", "
    "\"user\", \"web:*\"]\n";

std::string tool(const std::string& more) {
  return "[[tool]]\nname = \"t\"\nwhy = \"w\"\nprogram = \"/usr/bin/git\"\n" + more + "\n";
}

class ToolFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-tool-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = fs::canonical(pattern);
  }
  void TearDown() override { fs::remove_all(dir_); }
  Result<CompiledPolicy> load(const std::string& text) {
    std::ofstream(dir_ / "p.toml", std::ios::binary | std::ios::trunc) << "name = \"x\"\n" + text;
    return load_policy((dir_ / "p.toml").string(), kContext);
  }
  std::string error(const std::string& text) {
    const auto compiled = load(text);
    return compiled ? "" : compiled.error().what;
  }

  fs::path dir_;
};

TEST_F(ToolFile, EveryFormCompilesAndIsWrittenBackTheSame) {
  const std::string all = tool(R"(
sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
run_by = ["/usr/bin/python3"]
argv0 = ["git", "g"]
args = ["commit", ["a", "b"], { flag = "-q", optional = true, repeat = true },
        { any_order = ["-x", { flag = "--n=", value = { type = "integer", min = -3, max = 9 } }] },
        { any_order = [{ flag = "-u", value = { type = "url", within = ["a.test"] } }] },
        { value = { type = "path", within = ["@workspace/**", "~/x"], accept = ["policy"] } },
        { value = { type = "word", max = 4 }, optional = true },
        { value = { pattern = ["x*", "*y"], chars = "x-z", dash = true, min = 0 }, repeat = true }]
env = ["@usual", "A_*", { name = "B", value = { one_of = ["c\"d"] } }]
cwd = ["/srv/**", "@workspace"]
fds = "any")");
  const auto compiled = load(all + kRule);
  ASSERT_TRUE(compiled) << compiled.error().what;
  ASSERT_EQ(compiled->policy.tools.size(), 1u);
  EXPECT_EQ(compiled->policy.tools[0].parts.size(), 10u);
  EXPECT_EQ(compiled->policy.tools[0].parts[0].value->one_of,
            (std::vector<std::string>{"git", "g"}));
  EXPECT_EQ(compiled->policy.tools[0].cwd.size(), 2u) << "what is said replaces the default";
  const std::string text = effective_text(*compiled);
  std::ofstream(dir_ / "q.toml", std::ios::binary) << text;
  const auto again = load_policy((dir_ / "q.toml").string(), {"/elsewhere", "/home/other"});
  ASSERT_TRUE(again) << again.error().what << text;
  EXPECT_EQ(again->policy.digest(), compiled->policy.digest()) << text;
}

TEST_F(ToolFile, MistakesSayWhereAndWhat) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {tool("args = [\"\"]"), "empty argument"},
      {tool("args = [7]"), "a string, a list of strings or a table"},
      {tool("args = [{ flg = \"x\" }]"), "unknown key 'flg'"},
      {tool("args = [{ optional = true }]"), "'flag', its 'value', or both"},
      {tool("args = [{ value = { type = \"thing\" } }]"),
       "known are: text, word, url, integer, path"},
      {tool("args = [{ value = { type = \"path\" } }]"), "'within'"},
      {tool("args = [{ value = { within = [\"/x\"] } }]"), "'within'"},
      {tool("args = [{ value = { type = \"path\", within = [\"@private\"] } }]"), "@private"},
      {tool("args = [{ value = { min = 5, max = 4 } }]"), "'min' is more than 'max'"},
      {tool("args = [{ value = { max = 1000000 } }]"), "0 to 65536"},
      {tool("args = [{ value = { accept = [\"nobody\"] } }]"), "nobody"},
      {tool("args = [{ any_order = [{ any_order = [\"x\"] }] }]"), "not nested"},
      {tool("pin = \"later\""), "at-start"},
      {tool("sha256 = \"12\""), "64 hex digits"},
      {tool("sha256 = \"" + std::string(64, '0') + "\"\npin = \"at-start\""), "instead of"},
      {tool("fds = \"all\""), "\"stdio\" or \"any\""},
      {tool("env = [\"A*B\"]"), "a name, which '*' may end"},
      {tool("env = [\"A=B\"]"), "a name"},
      {tool("more = 1"), "unknown key 'more'"},
      {tool("") + tool(""), "already defined"},
      {kRule, "no tool 't'"},
      {"[[tool]]\nname = \"t\"\nwhy = \"w\"\nprogram = \"git\"\n", "one resolved path"},
      {"[[tool]]\nname = \"t\"\nwhy = \"w\"\nprogram = \"/usr/**\"\n", "one resolved path"},
  };
  for (const auto& [text, what] : wrong) {
    const std::string said = error(text);
    EXPECT_NE(said.find(what), std::string::npos) << text << "\n-> " << said;
    EXPECT_NE(said.find("p.toml:"), std::string::npos) << said;
  }
  EXPECT_NE(
      error(tool("") + "[[rule]]\nid = \"r\"\nwhy = \"w\"\nforbid = [\"exec\"]\ntools = [\"t\"]\n")
          .find("alone"),
      std::string::npos);
}

TEST_F(ToolFile, PinnedProgramsAreFilesNotLinks) {
  std::ofstream(dir_ / "prog") << "abc";
  fs::create_symlink(dir_ / "prog", dir_ / "link");
  const auto digest = program_digest((dir_ / "prog").string());
  ASSERT_TRUE(digest);
  EXPECT_EQ((*digest)[0], 0xba) << "SHA-256 of abc";
  EXPECT_FALSE(program_digest((dir_ / "link").string()));
  EXPECT_FALSE(program_digest(dir_.string()));
  kernel::Policy policy;
  policy.tools.resize(2);
  policy.tools[0].program = (dir_ / "prog").string();
  policy.tools[0].pin = kernel::Tool::Pin::kAtStart;
  policy.tools[1].program = "/nowhere";
  ASSERT_TRUE(pin_tools(policy));
  EXPECT_EQ(policy.tools[0].sha256, *digest);
  policy.tools[1].pin = kernel::Tool::Pin::kAtStart;
  EXPECT_FALSE(pin_tools(policy));
}

TEST_F(ToolFile, AnExampleOfEachShippedToolFits) {
  for (const char* name : {"examples/tools"}) {
    const auto compiled =
        load_policy(std::string(CERTGATE_SOURCE_DIR) + "/policies/" + name + ".toml", kContext);
    ASSERT_TRUE(compiled) << compiled.error().what;
    for (const kernel::Tool& one : compiled->policy.tools) {
      kernel::ExecEffect exec;
      exec.images = {{one.program, {}, one.sha256, false}};
      exec.argv = example_argv(one);
      exec.cwd = "/workspace";
      const kernel::ToolFit fit = kernel::fit_tool(one, exec);
      EXPECT_EQ(fit.fit, kernel::Fit::kFits) << one.name << ": " << fit.element << " " << fit.why;
    }
  }
}

TEST_F(ToolFile, AnalysisKnowsTools) {
  const auto found = [&](const std::string& text) {
    std::string out;
    const auto compiled = load(text);
    EXPECT_TRUE(compiled) << compiled.error().what;
    for (const Finding& f : analyze(compiled->policy))
      out += std::string(f.check) + " " + f.rule + ";";
    return out;
  };
  const auto path_rule = [](const std::string& id, const std::string& terms) {
    return "[[rule]]\nid = \"" + id + "\"\nwhy = \"w\"\n" + terms + "\n";
  };
  EXPECT_EQ(found(tool("args = [\"status\"]") + kRule), "");
  EXPECT_EQ(
      found(tool("") + kRule +
            path_rule(
                "all",
                "allow = [\"exec\"]\npaths = [\"/usr/**\"]\naccept = [\"operator\", \"user\"]")),
      "");
  EXPECT_EQ(found(tool("") + kRule +
                  path_rule("all",
                            "allow = [\"exec\"]\npaths = [\"/usr/bin/g*\"]\naccept = "
                            "[\"operator\", \"user\", \"web:*\"]")),
            "formless r;");
  EXPECT_EQ(
      found(tool("") + kRule + path_rule("no", "forbid = [\"exec\"]\npaths = [\"/usr/bin/**\"]")),
      "never r;");
  EXPECT_EQ(found(tool("") + kRule + path_rule("no", "forbid = [\"exec\"]\npaths = [\"/opt/**\"]")),
            "");
  const std::string shell =
      "[[tool]]\nname = \"t\"\nwhy = \"w\"\nprogram = \"/usr/bin/python3.11\"\n";
  EXPECT_EQ(found(shell + "args = [\"-c\", { value = {} }]\n" + kRule), "loose r;");
  EXPECT_EQ(found(shell + "args = [\"-c\", { value = { type = \"word\" } }]\n" + kRule), "");
  EXPECT_EQ(found(shell + "args = [\"-c\", { value = { accept = [\"user\"] } }]\n" + kRule), "");
}

TEST_F(ToolFile, DifferencesAreFoundInTools) {
  const auto before = load(tool("args = [\"status\"]") + kRule);
  ASSERT_TRUE(before);
  const CompiledPolicy kept = *before;
  const auto after = load(tool("args = [\"push\"]") + kRule);
  ASSERT_TRUE(after);
  const auto changes = differences(kept, *after, kContext);
  ASSERT_TRUE(changes);
  ASSERT_EQ(changes->size(), 2u);
  EXPECT_NE((*changes)[0].what.find("push"), std::string::npos) << (*changes)[0].what;
  EXPECT_NE((*changes)[1].what.find("status"), std::string::npos) << (*changes)[1].what;
}

}  // namespace
}  // namespace certgate::agentd
