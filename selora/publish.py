# The old name of `python -m selora.study.report.publish`, which still works.
from selora.study.report.publish import main

if __name__ == "__main__":
    main()
