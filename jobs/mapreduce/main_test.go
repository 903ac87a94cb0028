package mapreduce

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var upper = Job{
	Name:  "upper",
	Usage: "WORD",
	Configure: func(args []string) (Job, error) {
		j := Job{Map: func(ctx *Context, _, line []byte) error {
			ctx.Emit(bytes.ToUpper(line), nil)
			return nil
		}}
		if len(args) > 0 {
			j.Name, j.Reduce = args[0], Keys
		}
		return j, nil
	},
}

func TestDescribe(t *testing.T) {
	t.Setenv(describeEnv, "1")
	for _, test := range []struct {
		job  Job
		args []string
		want Description
	}{
		{upper, nil, Description{1, "upper", true, ""}},
		{upper, []string{"other"}, Description{1, "other", false, ""}},
		{Job{Name: "odd", Configure: func([]string) (Job, error) { panic("no idea") }}, nil, Description{1, "odd", false, "its Configure panicked: no idea"}},
		{Job{Name: "empty"}, nil, Description{1, "empty", false, "empty: Map or NewMapper is required"}},
	} {
		var out, errs bytes.Buffer
		code := run(test.job, append([]string{"./mine"}, test.args...), &out, &errs)
		var got Description
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || code != 0 || got != test.want || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%v: code %d, %s, %v; want %+v", test.args, code, out.String(), err, test.want)
		}
	}
}

func TestTheProcessByItself(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", []byte("b\na\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string // on standard output or error
	}{
		{"", 2, "millrace run ./mine INPUT... OUTPUT -- WORD"},
		{"--help", 0, "./mine --local [flags] INPUT... OUTPUT -- WORD"},
		{"x y", 2, "--local"},
		{"--local DIR/in", 2, "needs an INPUT and an OUTPUT"},
		{"--local DIR/in DIR/x --fast 1", 2, "--fast is not a flag"},
		{"--local DIR/in DIR/x --reduces -1", 2, "want a number"},
		{"--local DIR/in DIR/x --split-size big", 2, "want a size"},
		{"--local DIR/in DIR/x --compress rar", 2, "want gzip"},
		{"--local DIR/in DIR/x --reduces", 2, "needs a value"},
		{"--local DIR/in DIR/x --memory 0", 2, "want a size"},
		{"--local DIR/in DIR/x --max-record 0", 2, "want a size"},
		{"--local DIR/in DIR/x -D novalue", 2, "want KEY=VALUE"},
		{"--local DIR/in DIR/x --json=perhaps", 2, "want true or false"},
		{"--local DIR/in DIR/x --reduces 2", 2, "has no reducer"},
		{"--local DIR/none DIR/out", 2, "DIR/none matches nothing"},
		{"--local s3://b/none DIR/out", 2, "no object store is named"},
		{"--local DIR/in --reduces=2 DIR/out --split-size 1MiB -- sorted", 0, "2 records in 2 parts in DIR/out"},
		{"--local DIR/in DIR/out", 2, "not empty"},
		{"--local DIR/in DIR/out --overwrite", 0, "3 records in 1 part in"},
		{"--local --json DIR/in DIR/out --overwrite", 0, `"outputRecords":3`},
	} {
		t.Setenv("AWS_ENDPOINT_URL", "")
		t.Setenv("AWS_ENDPOINT_URL_S3", "")
		var out bytes.Buffer
		args := strings.Fields(strings.ReplaceAll(test.args, "DIR", dir))
		code := run(upper, append([]string{"./mine"}, args...), &out, &out)
		if code != test.code || !strings.Contains(out.String(), strings.ReplaceAll(test.want, "DIR", dir)) {
			t.Errorf("%q: code %d, %s; want %d, %q", test.args, code, out.String(), test.code, test.want)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "out", "part-m-00000")); err != nil || string(data) != "B\nA\nB\n" {
		t.Errorf("%q, %v", data, err)
	}
}

// What a job is given on a cluster it can be given here.
func TestPropertiesFilesAndMemoryOfALocalRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"in": "x\n", "words.txt": "shipped"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	job := Job{Map: func(ctx *Context, _, _ []byte) error {
		data, err := os.ReadFile(filepath.Join(ctx.WorkDir(), "list"))
		ctx.Emit([]byte(ctx.Property("a.b")), data)
		ctx.EmitInt([]byte("memory"), ctx.t.Lease().MemoryBytes)
		return err
	}}
	var out bytes.Buffer
	if code := run(job, []string{"./mine", "--local", "-D", "a.b=c=d", "--file", dir + "/words.txt#list", "--memory=64MiB", dir + "/in", dir + "/out"}, &out, &out); code != 0 {
		t.Fatalf("code %d, %s", code, out.String())
	}
	if data, err := os.ReadFile(filepath.Join(dir, "out", "part-m-00000")); err != nil || string(data) != "c=d\tshipped\nmemory\t67108864\n" {
		t.Errorf("%q, %v", data, err)
	}
}
