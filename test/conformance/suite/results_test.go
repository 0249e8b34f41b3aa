package suite

import (
	"encoding/json"
	"flag"
	"os"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

var results = flag.String("results", "", "file to which each test's outcome is added, a line of JSON, as soon as it is known")

// Every process of a parallel run adds to the same file; a line is one write, so lines do not mix. The suite's JUnit report is complete
// only at its end, and one that was interrupted has none.
var _ = ginkgo.ReportAfterEach(func(r ginkgo.SpecReport) {
	if *results == "" || r.LeafNodeType != types.NodeTypeIt || r.State.Is(types.SpecStatePending) || r.State == types.SpecStateSkipped && r.RunTime == 0 {
		return
	}
	line, err := json.Marshal(map[string]any{
		"name": r.FullText(), "state": r.State.String(), "seconds": r.RunTime.Round(time.Millisecond).Seconds(), "message": r.FailureMessage(),
		"at": r.FailureLocation().String(), "output": r.CapturedGinkgoWriterOutput,
	})
	if err != nil {
		panic(err)
	}
	f, err := os.OpenFile(*results, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		panic(err)
	}
})
