// Reads statements, each a JSON string on a line of its own, and prints those that TiDB's parser refuses, with why.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/pingcap/tidb/pkg/parser"
	_ "github.com/pingcap/tidb/pkg/parser/test_driver"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 64<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var statement string
		if err := json.Unmarshal(lines.Bytes(), &statement); err != nil {
			fmt.Fprintln(os.Stderr, "no JSON string:", err)
			os.Exit(2)
		}
		if _, _, err := parser.New().ParseSQL(statement); err != nil {
			_ = out.Encode([2]string{statement, err.Error()})
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
