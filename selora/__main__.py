# python -m selora: the command `selora`, where it is not on the path
from selora.command import main

if __name__ == "__main__":
    main()
