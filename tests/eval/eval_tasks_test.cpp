// The tasks that need no model: documents, questions and right answers.
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "code_tasks.hpp"
#include "eval_plan.hpp"
#include "line_retrieval.hpp"
#include "user_error.hpp"

namespace kvarn::bench {
namespace {

std::size_t words(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), ' '));
}

TEST(LineRetrieval, EveryAnswerStandsInTheDocument) {
  const QuestionSettings task = line_retrieval({.questions = 8, .max_tokens = 700, .seed = 3}, words);
  ASSERT_EQ(task.questions.size(), 8u);
  std::set<std::size_t> places;
  for (const Question& question : task.questions) {
    const std::size_t place = task.document.find(question.text + " " + question.expected + "\n");
    ASSERT_NE(place, std::string::npos) << question.text;
    EXPECT_EQ(question.expected.size(), 5u);
    places.insert(8 * place / task.document.size());
  }
  EXPECT_EQ(places.size(), 8u) << "one question an eighth of the document";
}

TEST(LineRetrieval, DocumentFillsItsTokensAndRepeats) {
  const RetrievalSettings settings = {.questions = 4, .max_tokens = 1000, .seed = 9};
  const std::string document = line_retrieval(settings, words).document;
  EXPECT_LE(words(document), 1000u);
  EXPECT_GT(words(document), 900u);
  EXPECT_EQ(document, line_retrieval(settings, words).document);
  EXPECT_NE(document, line_retrieval({.questions = 4, .max_tokens = 1000, .seed = 10}, words).document);
}

TEST(CodeTasks, BundledSet_CanBeAnsweredFromItsDocument) {
  const QuestionSettings tasks = read_code_tasks(KVARN_SOURCE_DIR "/bench/eval/code_tasks.txt");
  EXPECT_GE(tasks.questions.size(), 12u);
  EXPECT_TRUE(tasks.document.ends_with('\n'));
  for (const Question& task : tasks.questions) {
    EXPECT_NE(tasks.document.find(task.expected), std::string::npos) << task.expected;
    EXPECT_FALSE(task.text.ends_with('\n')) << task.text;
  }
}

TEST(CodeTasks, FileThatIsNone_IsRefused) {
  const std::string file = testing::TempDir() + "code_tasks_" + std::to_string(getpid());
  EXPECT_THROW(read_code_tasks(file + "_missing"), program::UserError);
  for (const char* text : {"", "x = 1\n", "#### next\nx\n", "#### task\nx\n", "#### task\n#### next\nx\n",
                           "#### task\nx\n#### next\n\n"}) {
    std::ofstream(file) << text;
    EXPECT_THROW(read_code_tasks(file), program::UserError) << text;
  }
  std::remove(file.c_str());
}

TEST(Questions, FirstLine_HoldsMoreThanBlanks) {
  EXPECT_EQ(first_line("  48213 \nDrawer"), "48213");
  EXPECT_EQ(first_line("48213"), "48213");
  EXPECT_EQ(first_line("\n\n  48213\n"), "48213");
  EXPECT_EQ(first_line("  \t"), "");
}

TEST(EvalPlan, PositionStep_KeepsLogitsSmall) {
  EXPECT_EQ(default_position_step(512, 49152), 1);
  EXPECT_EQ(default_position_step(512, 262144), 4);
  EXPECT_EQ(default_position_step(32, 262144), 1);
}

}  // namespace
}  // namespace kvarn::bench
