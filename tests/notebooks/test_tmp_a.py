from pathlib import Path
import pytest
@pytest.mark.parametrize("i", range(5))
def test_open(open_notebook, i, browser):
    nb = open_notebook(Path("/tmp/a/scratch_lab.py"))
    n = [nb.evaluate("i => stVi.figure(i)?._fullData?.length ?? -1", k) for k in range(5)]
    print("COUNTS", n)
    nb.page.wait_for_timeout(2000)
    n = [nb.evaluate("i => stVi.figure(i)?._fullData?.length ?? -1", k) for k in range(5)]
    print("COUNTS LATER", n)
    nb.screenshot("x%d" % i)
