// Package workload is the jobs and the changes of files that go on all the time: of several kinds, each with its command line and what must come of it.
package workload

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"millrace/cmd/chaos/checker"
)

// The buckets of inputs and of outputs.
const (
	InputBucket  = "chaos-in"
	OutputBucket = "chaos-out"
)

// Order is one job to submit.
type Order struct {
	checker.Job
	Kind         string
	Number       int      // in its series, from 1
	Args         []string // of `millrace job submit`
	Cancel       bool     // once it runs
	MayBeRefused bool     // as another job may have its output
}

// Workload makes orders.
type Workload struct {
	seed    uint64
	scripts string
	inputs  []input
	kinds   []kind // those that this machine can run
}

// input is one input, with the truths about it that many jobs want.
type input struct {
	checker.Input
	url, prefix   string
	words         checker.Counts
	all, distinct checker.Bag
}

// sizes of the inputs, in bytes of text.
var sizes = []int{3_000_000, 1_000_000, 200_000}

// New makes the inputs from a seed, and the scripts of programs in a folder.
func New(seed uint64, scripts string) (*Workload, error) {
	w := &Workload{seed: seed, scripts: scripts, kinds: kinds()}
	if _, err := exec.LookPath("python3"); err != nil {
		w.kinds = slices.DeleteFunc(w.kinds, func(k kind) bool { return k.name == python })
	}
	for i, size := range sizes {
		prefix := fmt.Sprintf("in-%d/", i)
		in := checker.NewInput(seed+uint64(i), prefix, size)
		w.inputs = append(w.inputs, input{in, "s3://" + InputBucket + "/" + prefix, prefix, in.Words(), in.All(), in.Distinct()})
	}
	if err := os.MkdirAll(scripts, 0o755); err != nil {
		return nil, err
	}
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(scripts, name), []byte(text), 0o755); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Inputs are what has to be in the bucket of inputs.
func (w *Workload) Inputs() []checker.Input {
	var all []checker.Input
	for _, in := range w.inputs {
		all = append(all, in.Input)
	}
	return all
}

var programs = map[string]string{
	"words.py": `import sys
for line in sys.stdin:
    for word in line.split():
        sys.stdout.write(word + "\t1\n")
`,
	"sum.py": `import sys
last, n = None, 0
for line in sys.stdin:
    word, _, count = line.rstrip("\n").partition("\t")
    if word != last:
        if last is not None:
            sys.stdout.write("%s\t%d\n" % (last, n))
        last, n = word, 0
    n += int(count)
if last is not None:
    sys.stdout.write("%s\t%d\n" % (last, n))
`,
	"words.sh": "#!/bin/sh\ntr -s ' ' '\\n' | sed '/^$/d; s/$/\\t1/'\n",
	"sum.sh":   "#!/bin/sh\nexec awk -F '\\t' '{ if (NR > 1 && ($1 \"\") != (k \"\")) { print k \"\\t\" n; n = 0 } k = $1; n += $2 } END { if (NR) print k \"\\t\" n }'\n",
	"slow.sh":  "#!/bin/sh\nfor i in $(seq $1); do sleep 1; echo reporter:status:waiting >&2; done\ncat\n",
}

// kind is a kind of job. Parts are named by how, over a number of maps or reduces.
type kind struct {
	name   string
	weight int
	make   func(w *Workload, r *rand.Rand, in input, o *Order)
}

// python is the kind that needs python3.
const python = "streaming python"

var completes = []string{"COMPLETED"}

func kinds() []kind {
	return []kind{
		{"wordcount", 3, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = in.words
			o.reduces(r, "part-r-%05d", "wordcount")
		}},
		{"grep", 2, func(w *Workload, r *rand.Rand, in input, o *Order) {
			word := fmt.Sprintf("w%d", r.IntN(30))
			o.Want = in.Matching(func(line string) bool { return strings.Contains(line, word) })
			o.mapOnly("part-m-%05d", "grep")
			o.Args = append(o.Args, "--", "-F", word)
		}},
		{"cat", 2, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = in.all
			o.mapOnly("part-m-%05d", "cat")
		}},
		{"distinct", 2, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = in.distinct
			o.reduces(r, "part-r-%05d", "distinct")
		}},
		{"sort", 3, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = checker.Sorted(in.all)
			o.reduces(r, "part-%05d", "--mapper", "cat", "--reducer", `sed 's/\t$//'`)
		}},
		{"streaming map-only", 1, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = in.Matching(func(line string) bool { return strings.Contains(line, "again") })
			o.mapOnly("part-%05d", "--mapper", `sed -n '/again/p'`, "--reduces", "0")
		}},
		{"streaming sh and awk", 2, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = in.words
			o.reduces(r, "part-%05d", w.streaming("words.sh", "./words.sh", "sum.sh", "./sum.sh")...)
		}},
		{python, 2, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = in.words
			o.reduces(r, "part-%05d", w.streaming("words.py", "python3 words.py", "sum.py", "python3 sum.py")...)
		}},
		{"slow streaming", 4, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Want = checker.Sorted(in.all)
			o.reduces(r, "part-%05d", "--mapper", fmt.Sprintf("sleep %d; cat", 1+r.IntN(3)), "--reducer", fmt.Sprintf(`sed 's/\t$//'; sleep %d`, r.IntN(4)))
		}},
		{"failing map", 1, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Ends = []string{"FAILED"}
			o.reduces(r, "part-%05d", "--mapper", "head -n 20; echo broken >&2; exit 7", "--reducer", "cat", "--max-attempts", "2")
		}},
		{"failing reduce", 1, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Ends = []string{"FAILED"}
			o.reduces(r, "part-%05d", "--mapper", "cat", "--reducer", "head -n 2000; exit 9", "--max-attempts", "2")
		}},
		{"cancelled", 2, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Ends, o.Cancel = []string{"CANCELLED", "COMPLETED"}, true
			o.Want = checker.Sorted(in.all)
			o.reduces(r, "part-%05d", "--mapper", "./slow.sh 15", "--file", filepath.Join(w.scripts, "slow.sh"), "--reducer", `sed 's/\t$//'`)
		}},
		{"timed out", 1, func(w *Workload, r *rand.Rand, in input, o *Order) {
			o.Ends = []string{"CANCELLED"}
			o.mapOnly("part-%05d", "--mapper", "./slow.sh 120", "--file", filepath.Join(w.scripts, "slow.sh"), "--reduces", "0", "--timeout", "4s")
		}},
	}
}

// Kinds are the names of the kinds.
func (w *Workload) Kinds() []string {
	var names []string
	for _, k := range w.kinds {
		names = append(names, k.name)
	}
	return names
}

func (w *Workload) streaming(mapFile, mapper, reduceFile, reducer string) []string {
	return []string{"--mapper", mapper, "--reducer", reducer, "--file", filepath.Join(w.scripts, mapFile), "--file", filepath.Join(w.scripts, reduceFile)}
}

// reduces makes it a job with a few reduces, and splits so small that there are many maps.
func (o *Order) reduces(r *rand.Rand, part string, args ...string) {
	n := 1 + r.IntN(5)
	o.Args = append(o.Args, args...)
	o.Args = append(o.Args, "--reduces", fmt.Sprint(n))
	o.parts(part, n)
}

// mapOnly makes it a job whose maps write parts.
func (o *Order) mapOnly(part string, args ...string) {
	o.Args = append(o.Args, args...)
	o.parts(part, 32)
}

func (o *Order) parts(name string, n int) {
	for i := range n {
		o.Parts = append(o.Parts, o.Prefix+fmt.Sprintf(name, i))
	}
}

// Lane is one series of orders. One goroutine uses it.
type Lane struct {
	w      *Workload
	name   string
	prefix string // of the one output that all its jobs overwrite; "": each has its own
	files  bool   // inputs and outputs are in the block store
	r      *rand.Rand
	n      int
}

// Lane makes a series; number tells it from the others. Series of the same overwritten output compete for it.
func (w *Workload) Lane(number int, overwrites string) *Lane {
	return &Lane{w: w, name: fmt.Sprintf("lane%d", number), prefix: overwrites, r: rand.New(rand.NewPCG(w.seed, uint64(100+number)))}
}

// LaneOfFiles makes a series whose jobs read and write the block store.
func (w *Workload) LaneOfFiles(number int) *Lane {
	l := w.Lane(number, "")
	l.files = true
	return l
}

// Next is the series' next order.
func (l *Lane) Next() Order {
	l.n++
	all := l.w.kinds
	total := 0
	for _, k := range all {
		total += k.weight
	}
	choice, k := l.r.IntN(total), 0
	for ; choice >= all[k].weight; k++ {
		choice -= all[k].weight
	}
	in := l.w.inputs[l.r.IntN(len(l.w.inputs))]
	o := Order{Kind: all[k].name, Number: l.n}
	o.Name = fmt.Sprintf("%s-%03d-%s", l.name, l.n, strings.ReplaceAll(o.Kind, " ", "-"))
	o.Prefix, o.Ends, o.InputRecords = o.Name+"/", completes, in.Records()
	from, to := in.url, "s3://"+OutputBucket+"/"
	if l.files {
		from, to, o.Prefix = FilesOfJobs+in.prefix, "", FilesOfJobs+o.Prefix
	}
	common := []string{"--input", from, "--split-size", []string{"128KiB", "300KiB", "1MiB"}[l.r.IntN(3)], "--name", o.Name, "--request-id", o.Name}
	if l.prefix != "" {
		o.Prefix, o.MayBeRefused = l.prefix, true
		common = append(common, "--overwrite")
	}
	o.Args = append(common, "--output", to+o.Prefix)
	all[k].make(l.w, l.r, in, &o)
	return o
}
