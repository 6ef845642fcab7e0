#!/usr/bin/env bash
# Puts the comment in FILE on a pull request, in the place of the one that is there: negawatt-comment.sh FILE REPOSITORY NUMBER
set -euo pipefail

file=$1 repository=$2 number=$3
[ -f "$file" ] || { echo "no comment was made"; exit 0; }
mark=$(head -n 1 "$file")

# Only a comment of a bot that begins with the mark is ours: a person may have quoted it.
filter=".[] | select(.user.type == \"Bot\" and (.body | startswith(\"$mark\"))) | .id"
if ! found=$(gh api --paginate "repos/$repository/issues/$number/comments" --jq "$filter"); then
  echo "::notice::negawatt check: comments cannot be read here; the summary of the job has it all"
  exit 0
fi
id=$(head -n 1 <<< "$found")
if [ -n "$id" ]; then
  way=(--method PATCH "repos/$repository/issues/comments/$id")
else
  way=(--method POST "repos/$repository/issues/$number/comments")
fi
gh api "${way[@]}" --field "body=@$file" --silent \
  || echo "::notice::negawatt check: no comment can be written here, as from a fork; the summary of the job has it all"
